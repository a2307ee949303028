"""What the reference gives at the fixed draws of a training, asked once each and kept: `train.reference_bank`.

Of φ the preference reads its two errors alone, and the prior term its output at T. So a pair's draw is two numbers and,
with a prior term, one latent: pairs × draws × c·h·w × 4 bytes in all, in memory and on disk.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ...families.interface import Model
from ...records import Pair
from ...runs.folder import Run
from ...storage.files import digest, read_tensors, write_tensors
from ..latents import Cache
from .course import autocast
from .objective import Reference
from .settings import TrainSettings
from .step import batch_at, fixed_draw, pair_at, reference_of, round_at


class ReferenceBank:
    """References by round. A round, one draw of each pair, is computed whole when a step first needs one of it.

    Its batches are always the same ones, so a resumed training, whatever it finds on disk, goes on bit for bit.
    """

    def __init__(
        self,
        model: Model,
        cache: Cache,
        pairs: Sequence[Pair],
        run: Run,
        settings: TrainSettings,
        *,
        seed: int,
        name: str,
    ) -> None:
        self.model, self.cache, self.run, self.settings, self.seed = model, cache, run, settings, seed
        self.count, self.name = len(cache.safe.mean), name
        self._rounds: dict[int, Reference] = {}
        described = [pair.content for pair in pairs]
        # The size of a batch decides how its outputs are rounded.
        deciding = {
            "reference_bank", "max_timestep", "share_timestep", "captions", "caption_dropout", "mixed_precision",
            "train_batch_size",
        }  # fmt: skip
        options = settings.model_dump(mode="json", include=deciding)
        self._key = digest([described, options, bool(settings.prior_weight), model.fingerprint(), model.variant, seed])

    def of(self, samples: Sequence[int], *, prior: bool) -> Reference:
        """What φ gives on the batch that `make_batch` makes of the same samples, on the model's device."""
        rounds = self.settings.reference_bank
        chosen = [pair_at(sample, self.count, self.seed) for sample in samples]
        found = [self._round(round_at(sample, self.count, rounds)) for sample in samples]
        safe = [reference.error[pair] for reference, pair in zip(found, chosen, strict=True)]
        unsafe = [reference.error[self.count + pair] for reference, pair in zip(found, chosen, strict=True)]
        priors = [reference.prior[pair] for reference, pair in zip(found, chosen, strict=True) if prior]
        device = self.model.device
        outputs = torch.stack(priors) if priors and self.settings.prior_weight else found[0].prior[:0]
        return Reference(torch.stack(safe + unsafe).to(device), outputs.to(device))

    def path(self, number: int) -> Path:
        """Where a round is kept."""
        return self.run.moments.with_name(f"reference-{self.name}-{number:04}.safetensors")

    def _round(self, number: int) -> Reference:
        if number not in self._rounds:
            # Of several processes one computes, and the others read.
            with self.run.claim(f"reference-{self.name}-{number:04}", wait=True):
                self._rounds[number] = self._read(number) or self._make(number)
        return self._rounds[number]

    def _read(self, number: int) -> Reference | None:
        if not self.path(number).exists():
            return None
        tensors, facts = read_tensors(self.path(number))
        return Reference(**tensors) if facts.get("key") == self._key else None

    def _make(self, number: int) -> Reference:
        size, shape = self.settings.train_batch_size, self.cache.safe.mean.shape[1:]
        safe: list[Tensor] = []
        unsafe: list[Tensor] = []
        priors: list[Tensor] = []
        with autocast(self.model, self.settings):
            for first in range(0, self.count, size):
                chosen = list(range(first, min(first + size, self.count)))
                places = [(pair, number) for pair in chosen]
                draws = fixed_draw(places, self.settings.reference_bank, shape, self.settings, self.seed)
                found = reference_of(self.model, batch_at(self.cache, self.model, chosen, draws, self.settings))
                for side, part in zip((safe, unsafe), found.error.chunk(2), strict=True):
                    side.append(part.cpu())
                priors.append(found.prior.cpu())
        made = Reference(torch.cat(safe + unsafe), torch.cat(priors))
        write_tensors(self.path(number), made._asdict(), {"key": self._key})
        return made
