"""What the pairs of a step read, as conditionings: their own prompts, the empty one, and random words."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ...errors import DuoError
from ...families.interface import Conditioning, Model, joined
from ...families.tokens import plain_tokens, text_of
from ...records import Pair
from .settings import MOST_RANDOM, Kind, Mixture

BATCH: Final = 8
"""How many prompts are read at once."""


class Texts:
    """The prompts of pairs, read once, in order. Pairs without prompts can read the other kinds alone."""

    def __init__(self, model: Model, pairs: Sequence[Pair], mixture: Mixture) -> None:
        self.model, self.empty = model, read(model, [""])
        missing = next((p.name for p in pairs if p.unsafe_prompt is None or p.safe_prompt is None), None)
        if missing is not None and mixture.unsafe + mixture.own > 0:
            hint = "shares of empty, random and search alone, or give prompts in a manifest"
            raise DuoError("captions unsafe and own need every pair's prompts", got=f"none for {missing}", hint=hint)
        self.unsafe = read(model, [p.unsafe_prompt or "" for p in pairs])
        self.safe = read(model, [p.safe_prompt or "" for p in pairs])
        self.words = plain_tokens(model)

    def random(self, generator: torch.Generator) -> Conditioning:
        """Random words, from 1 to 16 tokens, as one prompt."""
        count = int(torch.randint(1, MOST_RANDOM + 1, (1,), generator=generator))
        ids = self.words[torch.randint(0, len(self.words), (count,), generator=generator)]
        return read(self.model, [text_of(self.model, ids.tolist())])


def read(model: Model, prompts: Sequence[str]) -> Conditioning:
    """Prompts through the text encoders as they stand, float32, on the CPU; each distinct one is read once."""
    distinct = sorted(set(prompts))
    parts = [model.condition(distinct[i : i + BATCH]) for i in range(0, len(distinct), BATCH)]
    found = joined([part.map(_kept) for part in parts])
    return found.rows([distinct.index(prompt) for prompt in prompts])


def _kept(tensor: Tensor) -> Tensor:
    return tensor.detach().float().cpu()


def kind_of(mixture: Mixture, sample: int, seed: int) -> Kind:
    """What the `sample`-th draw of a training reads: a function of the sample's number alone."""
    shares = mixture.shares()
    (kind,) = random.Random(f"{seed}/caption/{sample}").choices(list(shares), list(shares.values()))
    return kind
