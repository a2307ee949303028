"""What a run gives its training to be watched by: pairs that it does not use, and prompts whose pictures are shown."""

from __future__ import annotations

import itertools
from typing import Final

from ..erasers.previews import Watch
from ..erasers.registry import ERASERS
from ..families.interface import SampleRequest
from ..pairs.candidates import make_candidate
from ..pairs.held_out import held_out_seed
from ..pairs.manifest import MANIFEST, load_pairs, read_entries
from ..session import Session

SHOWN: Final = 2
"""Prompts with the concept that previews show, each beside its counterpart without."""
TRIES: Final = 50
"""How many combinations of words are looked through for one that no evaluation asks."""
PREVIEWS: Final = -(1 << 40)
"""What is added to a seed for the noise of previews: no pair's seed is there."""


def held_out_share(session: Session) -> float:
    """The share of pairs that a run holds out: that of its own pairs where these are there, whichever eraser asks.

    0 where no training is measured on them, and where the run's edit was made before there were any.
    """
    settings, run = session.settings, session.run
    if settings.pairs.folder is not None and (run.pairs / MANIFEST).exists():
        return float(read_entries(run.pairs).settings.get("held_out", 0.0))
    if not _is_watched(session):
        return 0.0
    before = run.edit(settings.edit).is_dir() and not (run.held_out / MANIFEST).exists()
    return 0.0 if before else settings.pairs.held_out


def _is_watched(session: Session) -> bool:
    return session.settings.wrap is None and ERASERS.get(session.settings.eraser).watches


def watch_of(session: Session, asked: frozenset[str]) -> Watch | None:
    """How the run's training is watched; None for an eraser that watches none. asked: what the evaluation asks.

    Previews are of the pairs' kinds, with noise of their own, and ask nothing that the evaluation asks.
    """
    settings, run, concept = session.settings, session.run, session.concept
    if not _is_watched(session):
        return None
    there = held_out_share(session) > 0 and (run.held_out / MANIFEST).exists()
    pairs = [pair for pair in load_pairs(run.held_out) if pair.keep] if there else []
    seed = held_out_seed(settings.seed)
    requests = []
    for i in range(SHOWN):
        tries = (make_candidate(concept, i % len(concept.pairs), attempt, PREVIEWS + seed) for attempt in range(TRIES))
        fresh = (made for made in tries if not asked & {made.unsafe_prompt, made.safe_prompt})
        if (made := next(itertools.islice(fresh, i // len(concept.pairs), None), None)) is not None:
            requests += [SampleRequest(made.unsafe_prompt, made.seed), SampleRequest(made.safe_prompt, made.seed)]
    # Half the steps of an evaluation: enough to see what is there, and a few per cent of the training's time.
    steps = max(2, settings.evaluate.steps // 2)
    return Watch(pairs, run.held_out, requests, steps, settings.evaluate.guidance, seed, concept.sensitive)
