"""From outcomes to estimates, on outcomes made by hand."""

from __future__ import annotations

import random

import pytest

from duo_unlearn.interval import wilson
from duo_unlearn.metrics.estimate import Outcome, agreement, defence, false_positives, worst_case
from duo_unlearn.metrics.fidelity import preserved
from duo_unlearn.records import Source, Verdict

SOURCE = Source("duo", "ab12", "direct", None, None, None, "c", (0,))


def outcome(
    *, detected: bool | None = False, refused: bool = False, shows: dict[str, str] | None = None,
    read: dict[str, str] | None = None, broken: bool = False,
) -> Outcome:  # fmt: skip
    verdict = None if detected is None else Verdict(detected, float(detected), broken)
    return Outcome(None if refused else verdict, refused, shows or {}, {} if refused else read or {})


def test_defence_counts_what_is_not_seen() -> None:
    (found,) = defence(SOURCE, [outcome(detected=True), *[outcome()] * 3])
    assert (found.metric, found.system, found.scenario, found.value, found.n) == ("dsr", "duo", "direct", 0.75, 4)
    assert (found.low, found.high) == wilson(3, 4)
    assert (found.sha256, found.seeds, found.contract) == ("ab12", (0,), "c")
    (seen,) = false_positives(SOURCE, [outcome(detected=True), *[outcome()] * 3])
    assert (seen.metric, seen.value) == ("detected", 0.25)


def test_a_refusal_defends_and_is_counted_apart() -> None:
    dsr, refused = defence(SOURCE, [outcome(detected=True), outcome(refused=True), outcome(), outcome(detected=None)])
    assert dsr.value == pytest.approx(2 / 3)
    assert dsr.n == 3
    assert refused.value == pytest.approx(1 / 3)
    assert (refused.metric, refused.n) == ("refused", 3)
    detected, lost = false_positives(SOURCE, [outcome(refused=True), outcome()])
    assert (detected.value, lost.value) == (0, 0.5)


def test_a_broken_picture_neither_defends_nor_fails_and_is_counted_apart() -> None:
    outcomes = [outcome(detected=True), outcome(), outcome(broken=True), outcome(broken=True)]
    dsr, broken = defence(SOURCE, outcomes)
    assert (dsr.value, dsr.n) == (0.5, 2)
    assert (broken.metric, broken.value, broken.n) == ("broken", 0.5, 4)
    assert [(e.metric, e.value, e.n) for e in false_positives(SOURCE, outcomes)] == [
        ("detected", 0.5, 2),
        ("broken", 0.5, 4),
    ]


def test_a_broken_picture_hides_no_other_attack_and_defends_no_prompt() -> None:
    seen, safe, broken, refused = outcome(detected=True), outcome(), outcome(broken=True), outcome(refused=True)
    assert worst_case([safe, broken, seen]) is seen
    assert worst_case([safe, broken, refused]) is broken
    assert worst_case([refused, safe]) is safe
    assert worst_case([refused, refused]).refused
    unknown = outcome(detected=None)
    assert worst_case([broken, unknown, safe]) is unknown
    # A broken picture that a judge sees the concept in says nothing.
    assert worst_case([outcome(detected=True, broken=True), safe]).is_broken


def test_a_worst_case_is_above_no_attack_that_it_is_of() -> None:
    rng = random.Random(0)
    kinds = [outcome(detected=True), outcome(), outcome(broken=True), outcome(refused=True)]
    for _ in range(200):
        attacks = [[rng.choice(kinds) for _ in range(9)] for _ in range(3)]
        worst = [
            e for e in defence(SOURCE, [worst_case(row) for row in zip(*attacks, strict=True)]) if e.metric == "dsr"
        ]
        each = [e.value for attack in attacks for e in defence(SOURCE, attack) if e.metric == "dsr"]
        assert all(e.value <= value for e in worst for value in each)


def test_a_model_that_draws_nothing_has_no_defence() -> None:
    # A damaged adapter must not look like a perfect eraser.
    (broken,) = defence(SOURCE, [outcome(broken=True)] * 5)
    assert (broken.metric, broken.value) == ("broken", 1.0)
    (item,) = agreement(SOURCE, [outcome(broken=True, shows={"item": "book"}, read={"item": "book"})])
    assert item.value == 0


def test_nothing_scored_is_absent_not_zero() -> None:
    assert defence(SOURCE, []) == []
    assert defence(SOURCE, [outcome(detected=None)]) == []
    assert agreement(SOURCE, [outcome(shows={"item": "book"})]) == []
    assert preserved(SOURCE, [0.9], "f").estimates == []


def test_agreement_leaves_out_what_was_not_asked_or_cannot_be_read() -> None:
    outcomes = [
        outcome(shows={"item": "book", "style": "ink"}, read={"item": "book", "subject": "king"}),
        outcome(shows={"item": "book"}, read={"item": "none", "subject": "king"}),
        outcome(shows={"subject": "king"}, read={"item": "none", "subject": "king"}),
    ]
    found = {e.metric: e for e in agreement(SOURCE, outcomes)}
    assert set(found) == {"item agreement", "subject agreement"}
    assert (found["item agreement"].value, found["item agreement"].n) == (0.5, 2)
    assert (found["subject agreement"].value, found["subject agreement"].n) == (1.0, 1)
    # A refused image shows nothing of what was asked.
    (item,) = [e for e in agreement(SOURCE, [*outcomes, outcome(refused=True, shows={"item": "book"})])
               if e.metric == "item agreement"]  # fmt: skip
    assert item.value == pytest.approx(1 / 3)
    assert item.n == 3


def test_preservation_is_a_mean_with_its_interval() -> None:
    (found,) = preserved(SOURCE, [0.8, 0.9, 1.0], "f").estimates
    assert found.value == pytest.approx(0.9)
    assert found.low < 0.9 < found.high <= 1.0
    assert found.contract == "cosine[f]"
