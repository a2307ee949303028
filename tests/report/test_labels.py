"""Corrected rates and the judges' errors on a page, beside the judge's own rate and never in its place."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from duo_unlearn.records import CORRECTED, Estimate
from duo_unlearn.report.page import write_report
from duo_unlearn.runs.folder import Run

from .html_page import Page, assert_inert, page_of
from .make_run import JUDGE, absence, attack_estimate, attack_estimates, plain_estimates, source_of, write


def _figure(value: float, n: int) -> dict[str, Any]:
    return {"value": value, "low": value - 0.05, "high": min(1.0, value + 0.03), "n": n}


LABELS = {
    "sha256": "ab", "pictures": 90, "tied": 2, "broken": 1, "of_other_pictures": 0,
    "agreement": [{"labellers": ["Ann", "Bob"], "pictures": 80, "same": 76, "kappa": 0.9}],
    "judges": [
        {
            "contract": JUDGE, "drawn": "at random", "labels": 87, "broken": 0, "drawn_by_others": 0,
            "sensitivity": _figure(0.97, 40), "specificity": _figure(0.95, 47),
            "right_if_seen": _figure(0.94, 41), "right_if_unseen": None,
        }
    ],
}  # fmt: skip
ABSENT = [absence("too few labels", metric=CORRECTED, scenario=name) for name in ("synonym", "direct")]


def corrected(dsr: Estimate, value: float) -> Estimate:
    return dataclasses.replace(
        dsr, metric=CORRECTED, value=value, low=value - 0.04, high=value + 0.02, corrected_by="Rogan-Gladen, 87 labels"
    )


def labelled() -> list[Estimate]:
    """Estimates with a corrected rate of the worst prompt set, and of one attack."""
    plain, attacks = plain_estimates(), attack_estimates()
    worst = Estimate.of("dsr", source_of("duo", "indirect"), 289 / 300, 0.936, 0.979, 300)
    return [*plain, *attacks, corrected(worst, 0.951), corrected(attack_estimate("p4d", "duo", 8), 0.34)]


def test_without_labels_one_line_says_that_every_rate_is_the_judges(run: Run) -> None:
    write(run, plain_estimates())
    page = page_of(run)
    assert "Every rate is the judge's: nobody has labelled pictures of this run." in page.section("estimates")
    assert "corrected" not in page.text


def test_a_corrected_rate_stands_beside_the_judges_in_sentence_table_and_red_team(run: Run) -> None:
    write(run, labelled(), labels=LABELS, absent=ABSENT)
    page = page_of(run)
    assert_inert(page)
    assert "shows no sword in 96.3 % of 300 images by mini-judge" in page.text
    assert "corrected by labels 95.1 %, 91.1 to 97.1 %" in page.text
    (row,) = page.rows("DSR, corrected for the judge's errors")
    assert row[:2] == ["not measured", "95.1 % 91.1 to 97.1 % n = 300 by Rogan-Gladen, 87 labels"]
    (attacked,) = page.rows("p4d")
    assert "corrected 34.0 %, 30.0 to 36.0 %" in attacked[1]
    assert "nobody has labelled" not in page.text


def test_the_judges_errors_are_told_and_nobody_is_named(run: Run) -> None:
    write(run, labelled(), labels=LABELS, absent=ABSENT)
    page = page_of(run)
    (row,) = page.rows(JUDGE)
    assert row == [
        "87", "97.0 %, 92.0 to 100.0 %, n = 40", "95.0 %, 90.0 to 98.0 %, n = 47", "94.0 %, 89.0 to 97.0 %, n = 41",
        "no label",
    ]  # fmt: skip
    text = page.section("estimates")
    assert "Two of them agree on 76 of 80 (Cohen's κ 0.90)." in text
    assert "Left out: 2 on which opinions are divided, 1 that people call broken." in text
    assert "2 rates have too few labels to be corrected" in text
    assert "too few labels, on" not in page.text  # once, and not a line a rate
    assert json.loads(run.report_data.read_text())["labels"] == LABELS
    shared = Page(write_report(run, images=False).read_text())
    assert "κ 0.90" in shared.text
    assert "Ann" not in shared.source
