"""Numbers of several runs as one: a share that was corrected is no count."""

from __future__ import annotations

import dataclasses

import pytest

from duo_unlearn.experiments.pooled import pooled
from duo_unlearn.records import CORRECTED, Estimate, Source


def test_a_corrected_rate_is_pooled_by_its_intervals_and_not_by_counts() -> None:
    source = Source("duo", "ab", "direct", None, None, None, "judge", (0,))
    one = Estimate.of(CORRECTED, source, 0.8, 0.6, 1.0, 50, "strata, 20 labels")
    other = dataclasses.replace(one, value=0.6, low=0.4, high=0.8, seeds=(1,))
    (both,) = pooled([one, other])
    assert both.value == pytest.approx(0.7)
    assert (both.n, both.seeds) == (100, (0, 1))
    # Each half is 0.2 wide, far more than 100 images alone would give.
    assert both.high - both.value == pytest.approx(0.2 / 2**0.5)
