"""From judged attempts to estimates, on entries made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from duo_unlearn.interval import wilson
from duo_unlearn.metrics.estimate import agreement, defence, false_positives, preserved


def entry(*, detected: bool = False, shows: dict[str, str] | None = None, read: dict[str, str] | None = None) -> Any:
    return {"detected": detected, "shows": shows or {}, "read": read or {}}


def test_defence_counts_what_is_not_seen() -> None:
    (found,) = defence("erased", "direct", [entry(detected=True), *[entry()] * 3], "c")
    assert (found.metric, found.model, found.prompts, found.value, found.n) == ("dsr", "erased", "direct", 0.75, 4)
    assert (found.low, found.high) == wilson(3, 4)
    (seen,) = false_positives("erased", "keep", [entry(detected=True), *[entry()] * 3], "c")
    assert seen.value == 0.25


def test_nothing_scored_is_absent_not_zero() -> None:
    assert defence("erased", "direct", [], "c") == []
    assert agreement("erased", "keep", [entry(shows={"item": "book"})], "c") == []
    assert preserved("keep", [0.9], "f") == []


def test_agreement_leaves_out_what_was_not_asked_or_cannot_be_read() -> None:
    entries = [
        entry(shows={"item": "book", "style": "ink"}, read={"item": "book", "subject": "king"}),
        entry(shows={"item": "book"}, read={"item": "none", "subject": "king"}),
        entry(shows={"subject": "king"}, read={"item": "none", "subject": "king"}),
    ]
    found = {e.metric: e for e in agreement("original", "keep", entries, "c")}
    assert set(found) == {"item agreement", "subject agreement"}
    assert (found["item agreement"].value, found["item agreement"].n) == (0.5, 2)
    assert (found["subject agreement"].value, found["subject agreement"].n) == (1.0, 1)


def test_preservation_is_a_mean_with_its_interval() -> None:
    (found,) = preserved("keep", [0.8, 0.9, 1.0], "f")
    assert found.value == pytest.approx(0.9)
    assert found.low < 0.9 < found.high <= 1.0
    assert found.contract == "cosine[f]"
