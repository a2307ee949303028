"""The members of a run's sweep, and which points of earlier sweeps may stand beside new ones."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ..edits.provenance import edit_hash, seen_digest
from ..errors import DuoError
from ..report.frontier import Kind, Point
from ..runs.attempts import set_broken_aside
from ..runs.folder import Run
from ..session import Session
from ..storage.files import digest, read_object

SAMPLED: Final = ("resolution", "quantize", "channels_last", "detector", "evaluate")
"""Settings that decide a member's numbers, beside its edit. How many prompts there are is told by n."""
TRAINED: Final = ("recipe", "wrap", "wraps", "train")
"""Settings that decide a member's training beside them."""


def as_name(value: float) -> str:
    """A value of a sweep in its folder's name and on the command line: six digits, or all where they say less."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def member_folder(run: Run, kind: Kind, value: float) -> Path:
    """Where a member of a run's sweep lies."""
    return run.sweep / f"{kind}-{as_name(value)}"


def own_options(first: Session) -> list[str]:
    """The options of DUO's training that are a member's own: β, and in the paper's recipe what follows it."""
    return ["beta", *(["learning_rate", "prior_weight"] if first.settings.recipe == "paper" else [])]


def identity_of(first: Session, kind: Kind) -> dict[str, str]:
    """What a sweep's file says that all its points have in common.

    of: a hash of it; points of another one say nothing beside them. By the others a page knows whether they are of the
    edit that is there: its name; of strengths its sha256, of β the pairs that each training saw.
    """
    settings, edit = first.settings, dict[str, str]()
    names = {*SAMPLED, *(TRAINED if kind == "beta" else ())}
    own: Any = {"evaluate": {*settings.evaluate.counts, "batch"}, "train": set(own_options(first))}
    known = settings.model_dump(mode="json", include=names, exclude=own)
    if kind == "strength":
        edit = {"edit": settings.edit, "sha256": edit_hash(first.run.edit(settings.edit))}
    concept = first.concept.model_dump(mode="json", exclude={"summary", "recommended", "robust", "paper"})
    if kind == "beta":
        edit = {"edit": settings.edit, "pairs": seen_digest(pair.content[:2] for pair in first.pairs)}
    basis = [known, concept, first.model.fingerprint(), first.model.variant, first.pairs_digest]
    return {"of": digest([*basis, edit.get("sha256", "")])[:16], **edit}


def with_known(run: Run, kind: Kind, of: str, points: Sequence[Point]) -> list[Point]:
    """The points with those of earlier sweeps of the same whose members are there still, in order.

    of: see `identity_of`. Points of another edit, or of other pairs or settings, are left out, and told on stderr.
    """
    new = {point.at for point in points}
    was, known = _earlier(run.sweep / f"{kind}.json")
    there = [p for p in known if p.at not in new and member_folder(run, kind, p.at).is_dir()]
    if there and was != of:
        values = [as_name(p.at) for p in there]
        print(f"sweep: {kind} {', '.join(values)} left out, of another edit, pairs or settings", file=sys.stderr)
        again = " ".join(f"--{kind} {value}" for value in values)
        print(f"to have them beside the others: the same command with {again}", file=sys.stderr, flush=True)
        there = []
    return sorted([*points, *there], key=lambda point: point.at)


def _earlier(path: Path) -> tuple[str | None, list[Point]]:
    """What an earlier sweep was of, None where that is not told, and its points.

    There is none where its file is not there, or was broken and is set aside.
    """
    if not path.exists():
        return None, []
    try:
        content = read_object(path)
        return content.get("of"), [
            Point(p["at"], tuple(p["kept"]), {k: tuple(v) for k, v in p["defence"].items()}, tuple(p.get("broken", ())))
            for p in content["points"]
        ]
    except (DuoError, KeyError, TypeError, AttributeError) as error:
        set_broken_aside(path, str(error).replace("\n", " "))
        return None, []
