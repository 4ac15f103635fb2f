"""Draw docs/images/objectives.svg: where each divergence pushes a student that is wrong in one of three ways.

python docs/plot_objectives.py        (extra: docs)
"""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from counterpoise.config import Term
from counterpoise.objectives.composite import WeightedSum
from counterpoise.outputs import Outputs

TEACHER = torch.tensor([0.62, 0.25, 0.08, 0.03, 0.012, 0.005, 0.002, 0.001])
OBJECTIVES = {
    "forward KL": {"forward_kl": Term(temperature=1.0)},
    "reverse KL": {"reverse_kl": Term(temperature=1.0)},
    "Balance, half and half": {
        "balance": Term(forward_weight=0.5, reverse_weight=0.5, forward_temperature=1.0, reverse_temperature=1.0)
    },
    "Jensen-Shannon": {"jsd": Term()},
    "skewed forward KL": {"skewed_forward_kl": Term()},
    "alpha-beta (0.8, 0.3)": {"abkd": Term(temperature=1.0)},
}


def students() -> dict[str, Tensor]:
    """Probabilities of three students of the same teacher."""
    sure, flat = TEACHER**2, TEACHER**0.4
    tail = TEACHER.clone()
    tail[-3:] += torch.tensor([0.02, 0.06, 0.12])
    return {name: p / p.sum() for name, p in {"too sure": sure, "too flat": flat, "wrong in the tail": tail}.items()}


def push(terms: dict[str, Term], student: Tensor) -> Tensor:
    """-dL/dz of the student's logits: positive raises a class."""
    logits = student.log()[None].requires_grad_()
    loss = WeightedSum(terms)(Outputs(logits), Outputs(TEACHER.log()[None]), torch.tensor([0])).total
    (gradient,) = torch.autograd.grad(loss, logits)
    return -gradient[0]


def main() -> None:
    """Draw and save."""
    plt.rcParams.update(
        {
            "font.size": 8,
            "svg.hashsalt": "counterpoise",
            "svg.fonttype": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    kinds = students()
    figure, axes = plt.subplots(len(kinds), len(OBJECTIVES) + 1, figsize=(13, 5.2), sharex=True)
    ranks = torch.arange(1, len(TEACHER) + 1)
    for row, (name, student) in enumerate(kinds.items()):
        left = axes[row, 0]
        left.semilogy(ranks, TEACHER, "o-", color="#555", markersize=3, label="teacher")
        left.semilogy(ranks, student, "s-", color="#d95f02", markersize=3, label="student")
        left.set_ylabel(f"{name}\nprobability")
        if row == 0:
            left.legend(frameon=False)
        pushes = {title: push(terms, student) for title, terms in OBJECTIVES.items()}
        for column, (title, values) in enumerate(pushes.items(), start=1):
            panel = axes[row, column]
            share = (values[4:].norm() / values.norm()).item()
            panel.bar(ranks, values, color=["#1b9e77" if v > 0 else "#7570b3" for v in values])
            panel.axhline(0, color="#999", linewidth=0.5)
            panel.text(0.97, 0.9, f"tail {share:.0%}", transform=panel.transAxes, ha="right")
            panel.set_xticks([1, 4, 8])
            if row == 0:
                panel.set_title(title)
            panel.tick_params(labelleft=True)
    for panel in axes[-1]:
        panel.set_xlabel("class, by the teacher's rank")
    figure.tight_layout()
    figure.savefig(Path(__file__).parent / "images" / "objectives.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
