"""What the pairs of a step read, as conditionings: their own prompts, the empty one, and random words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ...edits.interface import edits_off
from ...errors import DuoError
from ...families.interface import Conditioning, Model, Tokens, Words, joined
from ...families.tokens import plain_tokens, sequence, text_of
from ...records import Pair
from .settings import MOST_RANDOM, Kind, Mixture

BATCH: Final = 8
"""How many prompts are read at once."""


class Texts:
    """The prompts of pairs, read once, in order. Pairs without prompts can read the other kinds alone.

    original_unsafe: the unsafe ones as the original model's encoders read them, whatever lies below the adapter.
    """

    def __init__(self, model: Model, pairs: Sequence[Pair], mixture: Mixture) -> None:
        self.model, self.empty = model, read(model, [""])
        missing = next((p.name for p in pairs if not p.has_prompts), None)
        if missing is not None and mixture.unsafe + mixture.own > 0:
            hint = "shares of empty, random, bank, search and free alone, or give prompts in a manifest"
            raise DuoError("captions unsafe and own need every pair's prompts", got=f"none for {missing}", hint=hint)
        asking, floored = [p.unsafe_prompt or "" for p in pairs], bool(model.switches)
        self.unsafe = read(model, asking)
        with edits_off(model):
            self.original_unsafe = read(model, asking) if floored else self.unsafe
        self.safe = read(model, [p.safe_prompt or "" for p in pairs])
        self.words = plain_tokens(model)

    def random_words(self, generator: torch.Generator) -> Words:
        """1 to 16 random tokens as one prompt; where an encoder reads no such tokens, as the text that they spell."""
        count = int(torch.randint(1, MOST_RANDOM + 1, (1,), generator=generator))
        ids = self.words[torch.randint(0, len(self.words), (count,), generator=generator)].tolist()
        if self.model.kind.reads_clip_alone:
            return Tokens(torch.tensor([sequence(self.model, ids)]))
        return [text_of(self.model, ids)]

    def read(self, words: Words) -> Conditioning:
        """One prompt through the text encoders as they stand, without gradient, float32, on the CPU."""
        with torch.no_grad():
            return self.model.condition(words).map(_on_cpu)

    def random(self, generator: torch.Generator) -> Conditioning:
        """Random words, read."""
        return self.read(self.random_words(generator))


def read(model: Model, prompts: Sequence[str]) -> Conditioning:
    """Prompts through the text encoders as they stand, float32, on the CPU; each distinct one is read once."""
    distinct = sorted(set(prompts))
    parts = [model.condition(distinct[i : i + BATCH]) for i in range(0, len(distinct), BATCH)]
    found = joined([part.map(_on_cpu) for part in parts])
    rows = {prompt: row for row, prompt in enumerate(distinct)}
    return found.rows([rows[prompt] for prompt in prompts])


def _on_cpu(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu()


def kind_of(mixture: Mixture, sample: int, seed: int) -> Kind:
    """What the `sample`-th draw of a training reads: a function of the sample's number alone."""
    shares = mixture.shares()
    (kind,) = random.Random(f"{seed}/caption/{sample}").choices(list(shares), list(shares.values()))
    return kind
