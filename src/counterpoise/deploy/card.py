"""What a model card says of a student's exports: how good each is, how fast and where, and whose work is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

from counterpoise.deploy.folder import Description
from counterpoise.engine.card import table
from counterpoise.engine.run_folder import RECEIPT
from counterpoise.system.measurements import BESIDE, is_of

START, END = "<!-- counterpoise: exports -->", "<!-- counterpoise: end of exports -->"
_MAKERS = {
    "timm": "timm",
    "torchvision": "torchvision",
    "smp": "segmentation-models-pytorch",
    "hf": "transformers",
    "cifar": "counterpoise",
    "digits": "counterpoise",
}
"""Packages that bring the networks of a family."""


def with_exports(
    card: str,
    exports: Mapping[str, Description],
    measured: Sequence[Mapping[str, Any]],
    folders: Sequence[Path],
    parts: Mapping[str, str],
    license_id: str | None = None,
    receipt: tuple[str, str] | None = None,
) -> str:
    """A student's card with its exports; what an earlier call wrote there is replaced.

    Args:
        card: README.md of the student folder.
        exports: by the folder that they are in, within the card's.
        measured: what `measure` found, a file each.
        folders: of the student and of the exports, whose measurements count.
        parts: whose work is in it and under which license.
        license_id: of the whole, as the Hub knows it, such as apache-2.0.
        receipt: the paragraph of that which lies beside the card, and its SHA-256.
    """
    before, _, rest = card.partition(START)
    _, _, after = rest.partition(END)
    body = "\n\n".join(
        section
        for section in (_table_of(exports), _latency(folders, measured), _receipt(receipt), _parts(parts))
        if section
    )
    text = f"{before.rstrip()}\n\n{START}\n\n{body}\n\n{END}\n{after.lstrip()}"
    if license_id is not None:
        head, mark, tail = text.partition("\n---\n")
        others = [line for line in head.split("\n") if not line.startswith("license:")]
        text = "\n".join([*others, f"license: {license_id}"]) + mark + tail
    return text


def parts_of(architecture: str, provenance: Mapping[str, Any]) -> dict[str, str]:
    """Whose work a student is made of, and under which license, as far as that is known here."""
    parts = {}
    maker = _MAKERS.get(architecture.partition("/")[0])
    if maker is not None:
        parts[f"network `{architecture}`"] = f"{maker}, {_license(maker)}"
    else:
        parts[f"network `{architecture}`"] = "code of one's own; not known here"
    teacher = provenance.get("teacher")
    if isinstance(teacher, Mapping):
        network = teacher.get("architecture", "of a store")
        parts[f"teacher `{network}`"] = "the license of its weights is not known here: check whether it binds students"
    parts["training data"] = f"fingerprint `{str(provenance.get('data_fingerprint', 'unknown'))[:16]}`; its terms " + (
        "are not known here: check whether they bind models"
    )
    return parts


def _license(package: str) -> str:
    try:
        fields = metadata(package)
    except PackageNotFoundError:
        return "license not known here"
    return next((fields[key] for key in ("License-Expression", "License") if key in fields), "license not known here")


def _table_of(exports: Mapping[str, Description]) -> str:
    if not exports:
        return ""
    rows = []
    for name, export in exports.items():
        found = export.agreement or {}
        metric = found.get("metric") or ""
        interval = found.get("interval") or (None, None)
        rows.append(
            (
                f"`{name}`",
                f"{export.format} {export.precision}",
                f"{_shipped(export) / 1e6:.3g}",
                f"{metric} {found['export']:.2f}" if metric else "",
                f"{found['loss']:.2f} ({interval[0]:.2f} to {interval[1]:.2f})" if metric else "",
                f"{found['same']:.2f}% of {found['positions']:,}" if found else "",
                _calibration(export.calibration),
                "yes" if export.verified else "no: its runtime does not run where it was made",
            )
        )
    head = ("folder", "format", "MB", "metric", "loss (95%)", "same answers", "calibration", "verified")
    return "## Exports\n\nMetrics on validation images in each runtime, beside the PyTorch student's.\n\n" + table(
        head, rows
    )


def _shipped(export: Description) -> int:
    """Bytes of what goes to the device."""
    return sum(file.bytes for name, file in export.files.items() if file is not None and name not in BESIDE)


def _calibration(given: Mapping[str, Any] | None) -> str:
    if given is None:
        return ""
    said = f"{given['method']} on {given['images']} training images"
    in_float = len(given["kept_in_float"])
    return f"{said}, {in_float} layers in float" if in_float else said


def _latency(folders: Sequence[Path], measured: Sequence[Mapping[str, Any]]) -> str:
    """Of each thing measured that goes into the card: the student itself, and its exports."""
    rows = []
    for result in measured:
        machine = result.get("machine") or {}
        where = f"{machine.get('processor', 'unknown')}, {machine.get('cores', '?')} cores, {machine.get('system', '')}"
        for entry in result.get("measured", ()):
            if not any(is_of(entry, folder) for folder in folders):
                continue
            for case in entry.get("cases", ()):
                low, high = case.get("low_ms"), case.get("high_ms")
                within = f" ({low:.2f} to {high:.2f})" if low is not None and high is not None else ""
                shown = f"{case['median_ms']:.2f}{within}"
                p95 = "" if case.get("p95_ms") is None else f"{case['p95_ms']:.2f}"
                kind = f"{entry.get('runtime')} {entry.get('precision', '')}{', a window' * bool(entry.get('window'))}"
                rows.append((kind, str(case["threads"]), str(case["batch"]), shown, p95, where))
    if not rows:
        return ""
    head = ("runtime", "threads", "batch", "median ms (95%)", "p95 ms", "machine")
    return "## Latency\n\nOf a whole batch, as `counterpoise measure` found it.\n\n" + table(head, rows)


def _receipt(receipt: tuple[str, str] | None) -> str:
    if receipt is None:
        return ""
    paragraph, sha256 = receipt
    return (
        f"## Receipt\n\n{' '.join(paragraph.split())}\n\n"
        f"`{RECEIPT}` beside this card has all hashes; its own SHA-256 is `{sha256}`."
    )


def _parts(parts: Mapping[str, str]) -> str:
    return "## Licenses of its parts\n\n" + table(("part", "whose, and under which license"), list(parts.items()))
