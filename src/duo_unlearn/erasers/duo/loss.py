"""The loss of a training's steps: which rows a step has, what its reference is read from, and its weights."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...families.interface import Model
from ..latents import Cache
from .objective import Terms
from .reference_bank import ReferenceBank
from .settings import TrainSettings
from .step import make_batch, terms_of


def has_prior(settings: TrainSettings, step: int) -> bool:
    """Whether a step, counted from 0, has the prior term: the last of every `prior_every` steps has it."""
    return settings.prior_weight > 0 and (step + 1) % settings.prior_every == 0


class DuoLoss:
    """DUO's terms as a function of a step and its samples. bank: where the reference is read; None: it is asked."""

    def __init__(
        self, model: Model, cache: Cache, settings: TrainSettings, seed: int, bank: ReferenceBank | None = None
    ) -> None:
        self.model, self.cache, self.settings, self.seed, self.bank = model, cache, settings, seed, bank

    def __call__(self, step: int, samples: Sequence[int], network: nn.Module | None = None) -> Terms:
        """The terms of one batch. network: the denoiser as wrapped for several processes."""
        settings, prior = self.settings, has_prior(self.settings, step)
        batch = make_batch(self.cache, self.model, list(samples), settings, self.seed, prior=prior)
        reference = self.bank.of(samples, prior=prior) if self.bank is not None else None
        return terms_of(self.model, network, batch, settings, reference, prior_every=settings.prior_every)
