"""The same number of several runs as one: counts of shares add up, means are weighed by how many they are of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from ..interval import wilson
from ..records import CORRECTED, Estimate, is_share

APART = ("broken", "refused")
"""Shares that a run has only where it is above 0."""
PRESERVATION = "prior preservation"
"""A mean of shares: never above 1, nor is its interval."""


def pooled(runs: Sequence[Sequence[Estimate]]) -> list[Estimate]:
    """One estimate for those that differ by run alone, in the order of the first ones; its seeds are theirs.

    runs: the estimates of each. What none of one run's pictures was, and some of another's were, counts as none there.

    The hash of a system's edits differs between runs, so the pooled one has none where there are several. Its interval
    is of the prompts that were asked: how far trainings of other seeds differ is not in it.
    """
    groups: dict[tuple[str | None, ...], list[Estimate]] = {}
    for run in with_none(runs):
        for e in run:
            groups.setdefault(e.of_what, []).append(e)
    return [group[0] if len(group) == 1 else _pool(group) for group in groups.values()]


def with_none(runs: Sequence[Sequence[Estimate]]) -> list[list[Estimate]]:
    """The estimates of each run, with a share of 0 for what some of another's pictures were and none of its own."""
    some = {e.of_what for run in runs for e in run if e.metric in APART}
    return [[*run, *_none_of(run, some)] for run in runs]


def _none_of(run: Sequence[Estimate], some: set[tuple[str | None, ...]]) -> Iterator[Estimate]:
    """A share of 0 of a run's pictures, for each of `some` that the run has no share of and did count."""
    mine = {e.of_what: e for e in run}
    for e in run:
        if e.metric not in ("dsr", "detected"):
            continue
        place = e.of_what[1:]
        broken = mine.get(("broken", *place))
        # What is broken is in no DSR, and in both of these.
        n = e.n if broken is None else broken.n
        low, high = wilson(0, n)
        for metric in APART:
            if (metric, *place) in some and (metric, *place) not in mine:
                yield dataclasses.replace(e, metric=metric, value=0.0, low=low, high=high, n=n, unscored=0)


def _pool(group: list[Estimate]) -> Estimate:
    n = sum(e.n for e in group)
    if is_share(group[0].metric) and group[0].metric != CORRECTED:  # a corrected share counts nothing
        hits = sum(round(e.value * e.n) for e in group)
        value, (low, high) = hits / n, wilson(hits, n)
    else:
        value = sum(e.value * e.n for e in group) / n
        # The error of a weighed mean, from each run's interval.
        half = math.sqrt(sum((e.n * _half(e)) ** 2 for e in group)) / n
        low, high = value - half, value + half
        if is_share(group[0].metric) or group[0].metric == PRESERVATION:
            low, high = max(low, 0.0), min(high, 1.0)
    return dataclasses.replace(
        group[0], value=value, low=low, high=high, n=n, unscored=sum(e.unscored for e in group),
        seeds=tuple(sorted({seed for e in group for seed in e.seeds})), sha256="",
    )  # fmt: skip


def _half(e: Estimate) -> float:
    """Half of an interval. That of a mean which is cut off at 1 is its lower side."""
    is_cut = e.metric == PRESERVATION and e.high == 1
    return e.value - e.low if is_cut else (e.high - e.low) / 2
