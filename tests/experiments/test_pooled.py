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
    (both,) = pooled([[one], [other]])
    assert both.value == pytest.approx(0.7)
    assert (both.n, both.seeds) == (100, (0, 1))
    # Each half is 0.2 wide, far more than 100 images alone would give.
    assert both.high - both.value == pytest.approx(0.2 / 2**0.5)


def test_an_interval_that_is_cut_off_at_one_is_as_wide_as_its_other_side_says() -> None:
    source = Source("duo", "ab", "keep", None, None, None, "cosine[x]", (0,))
    one = Estimate.of("prior preservation", source, 0.99, 0.95, 1.0, 50)  # ± 0.04
    (both,) = pooled([[one], [dataclasses.replace(one, seeds=(1,))]])
    assert both.value - both.low == pytest.approx(0.04 / 2**0.5)
    assert both.high == 1.0
    apart = dataclasses.replace(one, metric="kid", high=1.03)  # a distance may be above 1
    (both,) = pooled([[apart], [dataclasses.replace(apart, seeds=(1,))]])
    assert both.high > 1


def test_a_run_in_which_nothing_was_refused_or_broken_counts_too() -> None:
    source = Source("filter", "ab", "direct", None, None, None, "judge", (0,))
    other = Source("filter", "ab", "direct", None, None, None, "judge", (1,))
    hits = [True] * 10
    first = [*Estimate.of_share("dsr", source, hits), *Estimate.of_share("refused", source, [True, *[False] * 9])]
    second = [
        *Estimate.of_share("dsr", other, hits[:8]),
        *Estimate.of_share("broken", other, [True, True, *[False] * 8]),
    ]
    found = {e.metric: (e.value, e.n, e.seeds) for e in pooled([first, second])}
    assert found == {"dsr": (1.0, 18, (0, 1)), "refused": (0.05, 20, (0, 1)), "broken": (0.1, 20, (0, 1))}
    assert {e.metric for e in pooled([first])} == {"dsr", "refused"}
