"""McNemar's exact test against numbers by hand and against SciPy's binomial test."""

from __future__ import annotations

import pytest

from duo_unlearn.metrics.paired import mcnemar


def pairs(gained: int, lost: int, same: int = 5) -> list[tuple[bool, bool]]:
    return [(False, True)] * gained + [(True, False)] * lost + [(True, True)] * same


@pytest.mark.parametrize(
    ("gained", "lost", "p"), [(0, 0, 1.0), (1, 0, 1.0), (3, 3, 1.0), (6, 0, 2 / 64), (0, 6, 2 / 64), (7, 1, 18 / 256)]
)
def test_by_hand(gained: int, lost: int, p: float) -> None:
    assert mcnemar(pairs(gained, lost)) == pytest.approx(p)


def test_it_is_scipys_binomial_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    for gained, lost in ((2, 9), (10, 4), (1, 20)):
        expected = stats.binomtest(gained, gained + lost, 0.5).pvalue
        assert mcnemar(pairs(gained, lost)) == pytest.approx(expected)
