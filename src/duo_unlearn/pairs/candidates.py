"""Candidates for pairs: their prompts and seeds, each a pure function of (seed, kind, attempt), and how many to try."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..concepts.prompt_sets import Accept, choices_of, choose_fill, fill_template, placeholders, splitter
from ..concepts.spec import Concept
from ..errors import DuoError
from .manifest import KindTries

FIRST_GUESS: Final = 1.3
"""Candidates a missing pair, before any acceptance was observed."""
MOST_FILLS: Final = 1000


class Candidate(NamedTuple):
    """One attempt at a pair. kind: index into the concept's kinds of pairs.

    seed: of the unsafe image's noise. safe_seed: of the noise that SDEdit adds; with the first seed again, SDEdit
    would start on the unsafe image's own path, and leave an outline of the concept.
    """

    kind: int
    attempt: int
    seed: int
    safe_seed: int
    unsafe_prompt: str
    safe_prompt: str
    negative_prompt: str


def make_candidate(concept: Concept, kind: int, attempt: int, seed: int) -> Candidate:
    """The attempt-th candidate of a kind; both prompts share their words. DuoError if no combination is allowed."""
    rng = random.Random(f"{seed}/pairs/{kind}/{attempt}")
    image_seed, safe_seed = rng.randrange(1 << 31), rng.randrange(1 << 31)
    spec, accept = concept.pairs[kind], splitter(concept, held_out=False)
    words = _allowed_words(concept, kind, rng, accept)
    unsafe, safe = fill_template(spec.unsafe, words), fill_template(spec.safe, words)
    return Candidate(kind, attempt, image_seed, safe_seed, unsafe, safe, concept.negative_prompt or unsafe)


def _allowed_words(concept: Concept, kind: int, rng: random.Random, accept: Accept) -> dict[str, str]:
    used = placeholders(concept.pairs[kind].unsafe) | placeholders(concept.pairs[kind].safe)
    choices = choices_of(concept, used)
    # Held out with any of several joined concepts is held out: its evaluation asks for that scene.
    shown = [*concept.shows_any, concept.pairs[kind].shows]
    for _ in range(MOST_FILLS):
        words, labels = choose_fill(concept, rng, choices)
        if all(accept(labels | one) for one in shown):
            return words
    raise DuoError(
        f"the concept {concept.name} has a kind of pair whose every combination of words is held out for evaluation",
        got=concept.pairs[kind].safe,
        hint="give its placeholders more values under fill:",
    )


def candidates_to_try(record: KindTries, tries: int) -> int:
    """How many more candidates a kind should try now, from its acceptance so far, within tries × wanted in all."""
    missing, left = record.wanted - record.kept, tries * record.wanted - record.tries
    a_pair = (record.tries + FIRST_GUESS) / (record.kept + 1)
    return max(0, min(math.ceil(missing * a_pair), left)) if missing else 0


def next_round(concept: Concept, records: Sequence[KindTries], *, tries: int, most: int, seed: int) -> list[Candidate]:
    """The next candidates of all kinds together, at most `most`, in the order of kinds and attempts."""
    numbers = [
        (kind, record.tries + i) for kind, record in enumerate(records) for i in range(candidates_to_try(record, tries))
    ]
    return [make_candidate(concept, kind, attempt, seed) for kind, attempt in numbers[:most]]
