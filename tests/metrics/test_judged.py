"""Rates corrected for a judge's errors: worked numbers, edges, and how often the intervals hold the truth."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duo_unlearn.interval import wilson
from duo_unlearn.metrics.judged import (
    Share,
    Tally,
    by_strata,
    combined,
    errors_by_strata,
    rogan_gladen,
    rogan_gladen_by_strata,
    wilson_share,
)
from duo_unlearn.metrics.labelling import kappa, majority

NOTES = Path(__file__).parents[2] / "docs" / "notes" / "judge-labels"
SIMULATIONS = 4000


def test_limits_are_those_of_the_shares_interval() -> None:
    for hits, n in ((0, 7), (7, 7), (3, 11), (150, 300)):
        assert tuple(map(float, wilson_share(Tally(hits, n)))) == pytest.approx((hits / n, *wilson(hits, n)))
    assert tuple(map(float, wilson_share(Tally(0, 0)))) == (0.5, 0, 1)


def test_strata_are_weighed_by_their_size() -> None:
    # 40 of 100 seen; of 20 labelled among them 16 are right, of 30 labelled among the others 3 were missed.
    found = by_strata(Tally(40, 100), Tally(16, 20), Tally(3, 30))
    assert float(found.value) == pytest.approx(0.4 * 0.8 + 0.6 * 0.1)
    # MOVER by hand: each share's distance to its own Wilson limit, times what it is multiplied by.
    (one, other, size) = (wilson(16, 20), wilson(3, 30), wilson(40, 100))
    low = 0.38 - ((0.4 * (0.8 - one.low)) ** 2 + (0.6 * (0.1 - other.low)) ** 2 + (0.7 * (0.4 - size.low)) ** 2) ** 0.5
    assert float(found.low) == pytest.approx(low)
    assert float(found.low) < 0.38 < float(found.high)


def test_labels_that_agree_with_the_judge_leave_its_share_and_widen_its_interval() -> None:
    found, plain = by_strata(Tally(40, 100), Tally(20, 20), Tally(0, 20)), wilson(40, 100)
    assert float(found.value) == 0.4
    assert float(found.low) < plain.low
    assert float(found.high) > plain.high


def test_a_stratum_without_pictures_needs_no_label() -> None:
    found = by_strata(Tally(0, 50), Tally(0, 0), Tally(0, 20))
    assert float(found.value) == 0
    assert 0 < float(found.high) < 0.25


def test_rogan_gladen_on_worked_numbers() -> None:
    # t = 0.3, Se = 50/60, Sp = 48/60: (0.3 + 0.8 − 1) / (0.8333 + 0.8 − 1) = 0.1579.
    found = rogan_gladen(Tally(60, 200), Tally(50, 60), Tally(48, 60))
    assert float(found.value) == pytest.approx(0.157895, abs=1e-6)
    # Lang & Reiczigel by hand: t' = 0.30377 of 203.84, Se' = 51/62, Sp' = 49/62; 0.15352 − 0.01461 ± 1.96 · 0.08949.
    assert (float(found.low), float(found.high)) == pytest.approx((0.0, 0.31430), abs=2e-5)


def test_a_judge_no_better_than_chance_corrects_nothing() -> None:
    assert np.isnan(rogan_gladen(Tally(60, 200), Tally(20, 60), Tally(30, 60)).value)
    found = rogan_gladen_by_strata(Tally(60, 200), Tally(500, 1000), Tally(10, 40), Tally(20, 40))
    assert np.isnan(found.value)
    assert np.isnan(found.low)


def test_labels_drawn_by_verdict_are_weighed_to_sensitivity_and_specificity() -> None:
    # 100 of 1000 are seen, of which 90 % are right; of the 900 others 1 % were missed: 90 / (90 + 9).
    sensitivity, specificity = errors_by_strata(Tally(100, 1000), Tally(45, 50), Tally(1, 100))
    assert float(sensitivity.value) == pytest.approx(90 / 99)
    assert float(specificity.value) == pytest.approx(891 / 901)
    assert float(sensitivity.low) < 0.75  # one picture of 100 stands for nine
    # Taking the labels as they come would give 45 of 46.
    found = rogan_gladen_by_strata(Tally(30, 100), Tally(100, 1000), Tally(45, 50), Tally(1, 100))
    se, sp = 90 / 99, 891 / 901
    assert float(found.value) == pytest.approx((0.3 + sp - 1) / (se + sp - 1))


def test_values_stay_shares_within_their_intervals() -> None:
    rng = np.random.default_rng(0)
    n, m = 40, 12
    hits = [rng.integers(0, size + 1, 5000) for size in (n, m, m)]
    for function in (by_strata, rogan_gladen):
        found = function(Tally(hits[0], n), Tally(hits[1], m), Tally(hits[2], m))
        there = ~np.isnan(found.value)
        assert there.sum() > 1000
        value, low, high = (numbers[there] for numbers in found)
        assert np.all((low >= 0) & (low <= value) & (value <= high) & (high <= 1))


def _hidden(rng: np.random.Generator, n: int, truth: float, se: float, sp: float) -> tuple[Any, Any, Any]:
    """Of n pictures a simulation: how many have the concept and are seen, have it and are missed, are seen without."""
    yes = rng.binomial(n, truth, SIMULATIONS)
    hit = rng.binomial(yes, se)
    return hit, yes - hit, rng.binomial(n - yes, 1 - sp)


def _labelled(rng: np.random.Generator, n: int, each: int, hit: Any, missed: Any, false: Any) -> tuple[Tally, Tally]:
    """Labels drawn by the judge's word: `each` of what it sees and of what it does not, or all that there is."""
    seen = hit + false
    m1, m0 = np.minimum(each, seen), np.minimum(each, n - seen)
    ones = Tally(rng.hypergeometric(hit, false, m1), m1)
    return ones, Tally(rng.hypergeometric(missed, n - seen - missed, m0), m0)


def strata(truth: float, se: float, sp: float, n: int, each: int) -> Share:
    rng = np.random.default_rng(1)
    hit, missed, false = _hidden(rng, n, truth, se, sp)
    return by_strata(Tally(hit + false, n), *_labelled(rng, n, each, hit, missed, false))


def random_of_others(truth: float, se: float, sp: float, n: int, labels: int) -> Share:
    """Labels at random from other pictures, of which half have the concept."""
    rng = np.random.default_rng(2)
    hit, _, false = _hidden(rng, n, truth, se, sp)
    yes = np.clip(rng.binomial(labels, 0.5, SIMULATIONS), 10, labels - 10)
    no = labels - yes
    return rogan_gladen(Tally(hit + false, n), Tally(rng.binomial(yes, se), yes), Tally(rng.binomial(no, sp), no))


def strata_of_others(truth: float, se: float, sp: float, n: int, each: int) -> Share:
    """Labels by verdict from 2,000 other pictures, of which 30 % have the concept."""
    rng = np.random.default_rng(3)
    hit, _, false = _hidden(rng, n, truth, se, sp)
    pool = _hidden(rng, 2000, 0.3, se, sp)
    given = _labelled(rng, 2000, each, *pool)
    return rogan_gladen_by_strata(Tally(hit + false, n), Tally(pool[0] + pool[2], 2000), *given)


def _coverage(found: Share, truth: float) -> float:
    return float(np.mean((found.low <= truth) & (truth <= found.high)))


@pytest.mark.parametrize(
    ("simulate", "truth", "se", "sp", "n", "labels"),
    [
        (strata, 0.02, 0.9, 0.98, 300, 60),
        (strata, 0.05, 0.85, 0.85, 300, 60),
        (strata, 0.3, 0.9, 0.95, 300, 60),
        (strata, 0.6, 0.97, 0.95, 300, 60),
        (strata, 0.1, 0.85, 0.85, 100, 20),
        (random_of_others, 0.05, 0.97, 0.95, 300, 300),
        (random_of_others, 0.1, 0.97, 0.95, 100, 200),
        (random_of_others, 0.3, 0.9, 0.95, 100, 100),
        (random_of_others, 0.9, 0.9, 0.98, 300, 200),
        (strata_of_others, 0.02, 0.97, 0.95, 300, 100),
        (strata_of_others, 0.1, 0.99, 0.95, 100, 100),
        (strata_of_others, 0.3, 0.9, 0.98, 100, 100),
        (strata_of_others, 0.6, 0.85, 0.85, 300, 50),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    simulate: Callable[..., Share], truth: float, se: float, sp: float, n: int, labels: int
) -> None:
    found = simulate(truth, se, sp, n, labels)
    assert not np.isnan(found.value).any()
    assert 0.93 <= _coverage(found, truth) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(("se", "sp"), [(0.99, 0.95), (0.97, 0.95), (0.9, 0.98), (0.85, 0.85)])
@pytest.mark.parametrize("truth", [0.02, 0.05, 0.1, 0.3, 0.6, 0.9, 0.97])
def test_no_setting_of_a_wide_grid_is_far_off(truth: float, se: float, sp: float) -> None:
    # With few labels, or a judge that hardly errs, intervals are wider than they need be, and never much too short.
    for simulate in (strata, random_of_others, strata_of_others):
        for n, labels in ((50, 40), (100, 60), (300, 100), (300, 300)):
            assert 0.93 <= _coverage(simulate(truth, se, sp, n, labels), truth) <= 1.0, (simulate, n, labels)


def test_combined_gives_a_functions_value_at_the_shares_values() -> None:
    found = combined(lambda one, other: 1 - one * other, [wilson_share(Tally(8, 10)), wilson_share(Tally(1, 2))])
    assert float(found.value) == pytest.approx(0.6)


def test_the_word_of_most_counts_and_a_tie_does_not() -> None:
    assert majority(["yes", "no", "yes"]) == "yes"
    assert majority(["yes", "no"]) is None
    assert majority(["broken"]) == "broken"


def test_kappa_on_worked_numbers_and_on_the_two_readers_of_the_notes() -> None:
    # Cohen 1960's form: 20 + 15 of 50 agree, by chance half would: (0.7 − 0.5) / 0.5.
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(one, other) == pytest.approx(0.4)
    assert kappa(one, one) == 1
    assert kappa(["no"] * 9, ["no"] * 9) is None
    assert kappa([], []) is None
    readers = []
    for name in ("reader-1", "reader-2"):
        with (NOTES / f"{name}.csv").open(newline="") as file:
            said = {int(row[0]): row[1] for row in csv.reader(file) if row[0].isdecimal()}
        readers.append([said[number] for number in sorted(said)])
    assert kappa(*readers) == pytest.approx(0.969, abs=5e-4)
