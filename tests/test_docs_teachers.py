"""The tables of docs/teachers.md are those of their CSVs."""

from __future__ import annotations

from statistics import fmean, stdev

from tables_of_docs import page, results, shown


def test_the_table_of_few_labels_is_that_of_its_csv() -> None:
    rows = results("few_labels.csv")
    told = shown(page("teachers.md"), "| way | 1% ")
    assert [way for way, *_ in told] == list(dict.fromkeys(row["way"] for row in rows))
    for way, *scores in told:
        for share, score in zip(("0.01", "0.1"), scores, strict=True):
            top1 = [float(row["top1"]) for row in rows if (row["way"], row["labels"]) == (way, share)]
            assert len(top1) == 3
            assert score == f"{fmean(top1):.2f} ± {stdev(top1):.2f}"
