"""The loss of a training on pairs that it does not use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from ...families.interface import Model
from ..latents import Cache, build_cache
from ..previews import Watch
from ..step_adapters import HELD_OUT
from .course import autocast
from .objective import Reference
from .settings import TrainSettings
from .step import Batch, batch_at, draw, reference_of, terms_of

DRAWS: Final = 16
"""Noised pairs a look at the held-out ones has at least: of few pairs each is noised several times."""


class HeldOut:
    """The loss of held-out pairs under noise that is the same at every step, so that steps can be compared."""

    def __init__(self, model: Model, cache: Cache, settings: TrainSettings, seed: int) -> None:
        self.model, self.cache, self.seed = model, cache, seed
        self.settings = settings.model_copy(update={"prior_weight": 0.0, "prior_every": 1, "reference_bank": 0})
        self.count = len(cache.safe.mean)
        self.samples = list(range(self.count * -(-DRAWS // self.count)))
        self._references: list[Reference] = []

    def _batches(self) -> Iterator[Batch]:
        """Batches of the training's size, which is known to fit; made anew each time, so the device holds one."""
        size = self.settings.train_batch_size
        for first in range(0, len(self.samples), size):
            part = self.samples[first : first + size]
            places = [sample % self.count for sample in part]
            shape, dropout = self.cache.safe.mean.shape[1:], self.settings.caption_dropout
            draws = draw(part, shape, self.settings, self.seed, dropout)
            yield batch_at(self.cache, self.model, places, draws, self.settings)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """L_pref and implicit accuracy as metrics.jsonl names them."""
        with autocast(self.model, self.settings):
            if not self._references:
                self._references = [reference_of(self.model, batch) for batch in self._batches()]
            found = [
                terms_of(self.model, None, batch, self.settings, reference)
                for batch, reference in zip(self._batches(), self._references, strict=True)
            ]
        weights = [len(terms.logit) for terms in found]

        def mean(values: Sequence[Tensor]) -> float:
            return sum(float(v) * w for v, w in zip(values, weights, strict=True)) / sum(weights)

        return {HELD_OUT: mean([t.preference for t in found]), "held_out_accuracy": mean([t.accuracy for t in found])}


def held_out_of(model: Model, watch: Watch | None, settings: TrainSettings, path: Path) -> HeldOut | None:
    """The held-out pairs of a run, encoded; None where there are none. path: where their latents are kept."""
    if watch is None or not watch.pairs:
        return None
    cache = build_cache(model, watch.pairs, watch.folder, path, captions=settings.captions)
    return HeldOut(model, cache, settings, watch.seed)
