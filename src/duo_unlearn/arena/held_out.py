"""What a run gives its training to be watched by: pairs that it does not use, and prompts whose pictures are shown."""

from __future__ import annotations

from ..erasers.previews import Watch
from ..erasers.registry import ERASERS
from ..families.interface import SampleRequest
from ..pairs.candidates import make_candidate
from ..pairs.held_out import held_out_seed
from ..pairs.manifest import MANIFEST, load_pairs
from ..session import Session

SHOWN = 2
"""Prompts with the concept that previews show, each beside its counterpart without."""


def held_out_share(session: Session) -> float:
    """The share of pairs that a run holds out.

    0 where no training is measured on them, and where the run's pairs or edit were made before there were any.
    """
    settings, run = session.settings, session.run
    if settings.wrap is not None or not ERASERS.get(settings.eraser).watches:
        return 0.0
    if (run.held_out / MANIFEST).exists():
        return settings.pairs.held_out
    own_are_there = settings.pairs.folder is not None and (run.pairs / MANIFEST).exists()
    return 0.0 if own_are_there or run.edit(settings.edit).is_dir() else settings.pairs.held_out


def watch_of(session: Session) -> Watch | None:
    """How the run's training is watched; None for an eraser that watches none.

    Previews ask with words and noise that neither pairs nor an evaluation have, so a step may be chosen by them.
    """
    settings, run, concept = session.settings, session.run, session.concept
    if settings.wrap is not None or not ERASERS.get(settings.eraser).watches:
        return None
    there = held_out_share(session) > 0 and (run.held_out / MANIFEST).exists()
    pairs = [pair for pair in load_pairs(run.held_out) if pair.keep] if there else []
    seed = held_out_seed(settings.seed)
    requests = []
    for i in range(SHOWN):
        attempt, kind = divmod(i, len(concept.pairs))
        made = make_candidate(concept, kind, attempt, seed)
        requests += [SampleRequest(made.unsafe_prompt, made.seed), SampleRequest(made.safe_prompt, made.seed)]
    # Half the steps of an evaluation: enough to see what is there, and a few per cent of the training's time.
    steps = max(2, settings.evaluate.steps // 2)
    return Watch(pairs, run.held_out, requests, steps, settings.evaluate.guidance, seed)
