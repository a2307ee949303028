"""What must stay: the policy is held to another model on pictures without the concept, at every timestep.

    L_hold = mean (θ(x_t, t, c) − h(x_t, t, c))²,      t over the whole schedule

h is the original model, or the model with the floor (`hold_to`); without a floor they are one. x are the pairs' safe
pictures under their own prompts, and pictures of the concept's `keep` prompts and neighbours; c may be random words.
Training scenes alone are used, so no evaluation asks for what was held, and of keep prompts and neighbours the first
template of each alone: the other wordings tell whether more stays than what was held.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...edits.interface import edits_off
from ...edits.lora import adapters_off
from ...families.denoising import predict_noised
from ...families.interface import Conditioning, Moments, Words, joined
from ..captioned import kept_pictures
from ..descent import generator_of
from ..interface import EraserContext
from ..pictures import noised
from ..words import Kept, needed_texts
from .settings import RobustSettings
from .texts import Texts, read


class Holding:
    """Draws pictures that must stay, and gives the distance on them. passes: rows of the denoiser to sample them."""

    def __init__(self, context: EraserContext, safe: Moments, texts: Texts) -> None:
        self.model, self.seed, self.texts = context.model, context.seed, texts
        self.settings: RobustSettings = context.options
        self.to_original = self.settings.hold_to == "original" and bool(self.model.switches)
        self.moments, self.captions = safe, texts.safe
        self.passes, prompts = 0, [pair.safe_prompt or "" for pair in context.pairs]
        if others := other_prompts(context):
            kept = kept_pictures(context, others, self.settings.keep_steps, self.settings.keep_guidance)
            self.moments = Moments(*(torch.cat(parts) for parts in zip(safe, kept.moments, strict=True)))
            prompts += kept.captions
            self.passes = kept.passes
            self.captions = read(self.model, prompts)
        with edits_off(self.model):
            self.original = read(self.model, prompts) if self.to_original else self.captions

    def __call__(self, step: int) -> Tensor:
        """L_hold of a step, a scalar."""
        settings, generator = self.settings, generator_of(self.seed, "hold", step)
        chosen = torch.randint(0, len(self.moments.mean), (settings.hold_batch,), generator=generator).tolist()
        picked = noised(self.model, self.moments, chosen, generator)
        under_random = torch.rand(settings.hold_batch, generator=generator) < settings.hold_random
        words = [self.texts.random_words(generator) if is_random else None for is_random in under_random.tolist()]
        captions = self._read(self.captions, chosen, words)
        with torch.no_grad(), adapters_off(self.model.denoiser):
            if self.to_original:
                with edits_off(self.model):
                    original = self._read(self.original, chosen, words)
                    wanted = predict_noised(self.model, picked.noisy, picked.t, original)
            else:
                wanted = predict_noised(self.model, picked.noisy, picked.t, captions)
        now = predict_noised(self.model, picked.noisy, picked.t, captions)
        return (now.float() - wanted.float()).square().mean()

    def _read(self, captions: Conditioning, rows: list[int], words: list[Words | None]) -> Conditioning:
        """What is read of some pictures: their captions, or random words through the encoders as they stand."""
        pairs = zip(rows, words, strict=True)
        return joined([captions.rows([row]) if word is None else self.texts.read(word) for row, word in pairs])


def keeps(options: RobustSettings) -> bool:
    """Whether a training is given prompts of what must stay."""
    return bool(options.hold_weight and (options.keep or options.neighbours))


def other_prompts(context: EraserContext) -> list[str]:
    """The prompts of what must stay beside the pairs' own; none where nothing is held."""
    if not keeps(context.options):
        return []
    counts: dict[Kept, int] = {"keep": context.options.keep, "neighbours": context.options.neighbours}
    return [text for kind, count in counts.items() if count for text in needed_texts(context, count, kind, plain=True)]
