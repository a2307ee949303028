"""What must stay: the policy is held to the original model on pictures without the concept, at every timestep.

    L_hold = mean (θ(x_t, t, c) − φ(x_t, t, c))²,      t over the whole schedule

x are the pairs' safe pictures under their own prompts, and pictures of the concept's `keep` prompts; c may be random
words. Training scenes alone are used, so no evaluation asks for what was held.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...edits.interface import edits_off
from ...edits.lora import adapters_off
from ...families.denoising import predict_noised
from ...families.interface import Moments, joined
from ..captioned import both_sides, kept_pictures
from ..descent import generator_of
from ..interface import EraserContext
from ..pictures import noised
from .settings import RobustSettings
from .texts import Texts, read


class Holding:
    """Draws pictures that must stay, and gives the distance on them."""

    def __init__(self, context: EraserContext, texts: Texts) -> None:
        self.model, self.seed, self.texts = context.model, context.seed, texts
        self.settings: RobustSettings = context.options
        _, safe = both_sides(context)
        means, stds, captions = [safe.moments.mean], [safe.moments.std], list(safe.captions)
        if self.settings.keep:
            with edits_off(self.model):  # those of the original model, whatever lies below the adapter
                kept = kept_pictures(context, self.settings.keep, self.settings.keep_steps, self.settings.keep_guidance)
            means, stds = [*means, kept.moments.mean], [*stds, kept.moments.std]
            captions += kept.captions
        self.moments = Moments(torch.cat(means), torch.cat(stds))
        self.captions = read(self.model, captions)

    def __call__(self, step: int) -> Tensor:
        """L_hold of a step, a scalar."""
        settings, generator = self.settings, generator_of(self.seed, "hold", step)
        chosen = torch.randint(0, len(self.moments.mean), (settings.hold_batch,), generator=generator).tolist()
        picked = noised(self.model, self.moments, chosen, generator)
        under_random = torch.rand(settings.hold_batch, generator=generator) < settings.hold_random
        captions = joined(
            [
                self.texts.random(generator) if is_random else self.captions.rows([row])
                for row, is_random in zip(chosen, under_random.tolist(), strict=True)
            ]
        )
        with torch.no_grad(), adapters_off(self.model.denoiser):
            wanted = predict_noised(self.model, picked.noisy, picked.t, captions)
        now = predict_noised(self.model, picked.noisy, picked.t, captions)
        return (now.float() - wanted.float()).square().mean()
