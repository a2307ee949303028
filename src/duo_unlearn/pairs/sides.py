"""Whether the sides of a user's pairs are what their folders say: the concept in the unsafe members, not in the safe.

Training on swapped sides would put the concept in, so pairs that look swapped are refused before anything is copied.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from ..detectors.interface import Detector, verdicts_of
from ..errors import DuoError
from ..progress import progress
from ..records import Pair, Verdict
from ..storage.pictures import open_image

BATCH: Final = 8
"""How many images are in memory at once; a user's may be large."""


class SideVerdicts(NamedTuple):
    """The verdicts on both members of each pair, in order; None where the detector failed. errors: what it raised."""

    unsafe: list[Verdict | None]
    safe: list[Verdict | None]
    errors: list[str]

    def with_scores(self, pair: Pair, index: int) -> Pair:
        """The pair with number `index`, with its scores."""
        unsafe, safe = self.unsafe[index], self.safe[index]
        return dataclasses.replace(
            pair, unsafe_score=unsafe.score if unsafe else None, safe_score=safe.score if safe else None
        )


class SideCounts(NamedTuple):
    """In how many members of each side the concept is seen, and how many were judged."""

    unsafe_seen: int
    unsafe: int
    safe_seen: int
    safe: int

    @property
    def words(self) -> str:
        """The counts as a sentence."""
        return (
            f"the concept is seen in {self.unsafe_seen} of {self.unsafe} unsafe "
            f"and in {self.safe_seen} of {self.safe} safe members"
        )


def judge_sides(detector: Detector, files: Sequence[tuple[Path, Path]], *, quiet: bool = False) -> SideVerdicts:
    """Judge the members of pairs. files: the unsafe and the safe image of each, readable ones (`check_pairs`)."""
    verdicts = SideVerdicts([], [], [])
    with progress("pairs: judge", len(files), quiet=quiet) as report:
        for first in range(0, len(files), BATCH):
            part = files[first : first + BATCH]
            for side, found in enumerate((verdicts.unsafe, verdicts.safe)):
                found += verdicts_of(detector, [open_image(pair[side]) for pair in part], verdicts.errors)
            report(len(verdicts.safe))
    return verdicts


def count_sides(verdicts: SideVerdicts, pairs: Sequence[Pair]) -> SideCounts:
    """Counts over the pairs that training would use."""
    unsafe, safe = (
        [verdict.detected for verdict, pair in zip(side, pairs, strict=True) if verdict is not None and pair.keep]
        for side in (verdicts.unsafe, verdicts.safe)
    )
    return SideCounts(sum(unsafe), len(unsafe), sum(safe), len(safe))


def check_sides(counts: SideCounts, source: Path) -> None:
    """Refuse pairs that look swapped: the concept is seen in more safe members than in unsafe ones."""
    if counts.safe_seen > counts.unsafe_seen:
        hint = "swap the folders unsafe/ and safe/; if the detector is wrong about your images: --trust-pairs"
        raise DuoError(f"the sides of the pairs in {source} look swapped", got=counts.words, hint=hint)


def report_sides(verdicts: SideVerdicts, counts: SideCounts) -> None:
    """Say on stderr how many members fail the gates that synthesized pairs must pass; they are kept all the same."""
    if verdicts.errors:
        total = len(verdicts.unsafe) + len(verdicts.safe)
        text = f"warning: {len(verdicts.errors)} of {total} images could not be judged ({verdicts.errors[0]})"
        print(text, file=sys.stderr, flush=True)
    if counts.unsafe_seen < counts.unsafe or counts.safe_seen:
        text = f"warning: {counts.words}; all pairs are kept (`duo drop` leaves one out)"
        print(text, file=sys.stderr, flush=True)
