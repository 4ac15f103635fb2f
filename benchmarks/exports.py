"""How exports agree with their student, as export.json says: python benchmarks/exports.py EXPORT... --out FILE.csv"""

from __future__ import annotations

import argparse
from pathlib import Path

from counterpoise.deploy import folder
from harness import commit, device, write_csv


def main() -> None:
    """Print one line an export, and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exports", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    cases = []
    made: dict[str, str] = {}
    for described in map(folder.read, given.exports):
        found = described.agreement
        if found is None:
            parser.error(f"{described.format} {described.precision} was compared on no images.")
        low, high = found["interval"]
        made |= described.versions
        cases.append(
            {
                "student": described.architecture,
                "student_sha256": described.student_sha256[:12],
                "format": described.format,
                "precision": described.precision,
                "images": found["images"],
                "answers": found["positions"],
                "largest_difference": found["largest_difference"],
                "largest_logit": found["largest_logit"],
                "same": f"{found['same']:.5f}",
                "metric": found["metric"],
                "student_metric": f"{found['student']:.3f}",
                "export_metric": f"{found['export']:.3f}",
                "loss": f"{found['loss']:.3f}",
                "low": f"{low:.3f}",
                "high": f"{high:.3f}",
                "bytes": next(iter(described.files.values())).bytes,
                "operators": described.notes.get("operators", ""),
                "xnnpack": described.notes.get("xnnpack", ""),
                "calibration_images": (described.calibration or {}).get("images", ""),
            }
        )
        print("  ".join(f"{key} {value}" for key, value in cases[-1].items()))
    command = "counterpoise export RUN --to FORMAT --precision PRECISION --images 10000; python benchmarks/exports.py"
    write_csv(
        given.out,
        {"benchmark": "exports", "device": device(), "versions": made, "commit": commit(), "cases": cases,
         "command": f"{command} EXPORT... --out benchmarks/results/{given.out.name}"},
    )  # fmt: skip


if __name__ == "__main__":
    main()
