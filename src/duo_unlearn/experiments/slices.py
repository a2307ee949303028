"""Slices of a run: its pairs dealt out to runs of their own and trained apart, for the ledger.

What a pair holds decides its slice, and not the other pairs. So where one is dropped, the slice that held it is trained
again, and the others are what they were. The price is that slices differ in size.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..arena.edits import make_edit
from ..arena.sharing import copy_files
from ..erasers.registry import ERASERS
from ..errors import DuoError
from ..pairs.manifest import MANIFEST, read_entries, save_manifest
from ..records import Pair
from ..runs.folder import Run
from ..session import Session
from ..settings.resolve import for_another_run, resolve_settings
from ..settings.tree import Settings, merge
from ..storage.files import digest, read_object, write_bytes, write_json


def slice_of(pair: Pair, count: int) -> int:
    """Which of `count` slices a pair is in, from 0: its images alone decide."""
    return int(digest([pair.unsafe_sha256, pair.safe_sha256]), 16) % count


def deal(pairs: Sequence[Pair], count: int) -> list[list[Pair]]:
    """The pairs of each slice, in the order of the pairs. A slice may have none."""
    slices: list[list[Pair]] = [[] for _ in range(count)]
    for pair in pairs:
        slices[slice_of(pair, count)].append(pair)
    return slices


def train_slices(session: Session, count: int, say: Callable[[str], None] = lambda _text: None) -> list[Path]:
    """Deal a run's pairs out to `count` runs in RUN/slices and train each alone; gives their folders.

    What is done is skipped. A slice that lost a pair is trained again without it. One that was deleted because it lost
    all is left out. Edits that could not be added up are a DuoError, and so is a slice without a pair.
    """
    _check_sum(session.settings)
    slices = _planned(session, count)
    write_json(session.run.slice_count, {"version": 1, "slices": count})
    vars(session).pop("model", None)  # each slice loads its own
    for run, pairs in slices.items():
        known = for_another_run(session.settings)
        part = Session(resolve_settings(merge(known, {"output": str(run.folder)})), quiet=session.quiet)
        with run.lock():
            _give(session.run, run, pairs)
            state = make_edit(part)
        say(f"slice {run.folder.name} of {count}: {state}, {len(part.pairs)} pairs → {run.folder}")
    return [run.folder for run in slices]


def _check_sum(settings: Settings) -> None:
    """Fail for a run whose slices could not be added up, before they are trained."""
    if settings.floor is not None:
        hint = "slice a run without a floor: --set floor=null where it is trained"
        got = f"{settings.eraser} on top of {settings.floor}"
        raise DuoError("slices that lie on another edit cannot be added up", got=got, hint=hint)
    if ERASERS.get(settings.eraser).makes == "weights":
        able = [name for name in ERASERS.names() if ERASERS.get(name).makes != "weights"]
        hint = f"slice a run of an eraser that makes an adapter or a low-rank change: {', '.join(able)}"
        got = f"{settings.eraser}, which changes whole weights"
        raise DuoError("slices of this eraser cannot be added up exactly", got=got, hint=hint)


def _planned(session: Session, count: int) -> dict[Run, list[Pair]]:
    """The run of each slice, and the pairs that it must have. One without a pair that is kept is a DuoError."""
    pairs, folder = session.pairs, session.run.slices
    was_dealt = _check_count(session.run, count)
    none_for_some = count < 2 or (not was_dealt and count > len(pairs))
    dealt = [] if none_for_some else deal(pairs, count)
    if none_for_some or (not was_dealt and not all(dealt)):
        most = min(count - 1, len(pairs))
        fewer = next((number for number in range(most, 1, -1) if all(deal(pairs, number))), None)
        hint = f"--slices {fewer}" if fewer is not None else "--slices 2 or more, or more pairs"
        got = f"{count} slices of {len(pairs)} pairs" + (f", {dealt.count([])} of them empty" if dealt else "")
        raise DuoError("slices must have a pair each, whose images decide where it is", got=got, hint=hint)
    planned: dict[Run, list[Pair]] = {}
    for number, mine in enumerate(dealt, 1):
        run = Run(folder / str(number))
        if not mine and not run.folder.exists():
            continue  # it lost every pair, and was deleted as the error below says
        planned[run] = _as_there(run, mine)
        if not any(pair.keep for pair in planned[run]):
            hint = f"delete {run.folder}, then the same command: the others stay"
            raise DuoError(f"slice {number} of {count} has no pair left", got="all of them are dropped", hint=hint)
    return planned


def _check_count(run: Run, count: int) -> bool:
    """Whether the run has slices already. Another number of them is a DuoError; so are those of an older version."""
    if not any(run.slices.glob(f"*/{run.pairs.name}/{MANIFEST}")):
        return False
    known: dict[str, Any] = read_object(run.slice_count) if run.slice_count.exists() else {}
    if (there := known.get("slices")) is None:
        got = "slices that were dealt by the order of the pairs"
        raise DuoError(f"{run.slices} is of an older version", got=got, hint=f"delete {run.slices}, to train them anew")
    if there != count:
        hint = f"duo ledger {run.argument} --slices {there}, or delete {run.slices}"
        raise DuoError(f"{run.slices} holds another number of slices", got=f"{there} there, {count} asked", hint=hint)
    return True


def _as_there(run: Run, pairs: Sequence[Pair]) -> list[Pair]:
    """Pairs as a slice has them: one that was dropped in the slice stays dropped."""
    there = {pair.name: pair for pair in _listed(run)}
    return [
        dataclasses.replace(pair, keep=own.keep, reason=own.reason)
        if (own := there.get(pair.name)) is not None and own.content == pair.content
        else pair
        for pair in pairs
    ]


def _listed(run: Run) -> list[Pair]:
    return read_entries(run.pairs).pairs if (run.pairs / MANIFEST).exists() else []


def _give(source: Run, run: Run, pairs: Sequence[Pair]) -> None:
    """Copy its pairs into a slice, where it has others; what it was trained on those is taken away, pictures too."""
    there = _listed(run)
    if [(pair.name, pair.content) for pair in there] == [(pair.name, pair.content) for pair in pairs]:
        return
    for name in ("train", "bank", "rounds", "cache"):
        shutil.rmtree(run.folder / name, ignore_errors=True)
    copy_files(source.held_out, run.held_out)
    files = {file for pair in pairs for file in (pair.unsafe, pair.safe)}
    for file in sorted(files):
        write_bytes(run.pairs / file, (source.pairs / file).read_bytes())
    for file in {file for pair in there for file in (pair.unsafe, pair.safe)} - files:
        (run.pairs / file).unlink(missing_ok=True)
    # The list last: with it the slice counts as dealt.
    found = read_entries(source.pairs)
    save_manifest(run.pairs, concept=found.concept, settings=found.settings, pairs=pairs, tries=found.tries)
