"""One noised pass of the denoiser, and its squared error: what inversions, searches and fine-tuning share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .interface import Conditioning, Model, Moments, PromptWords, joined
from .noise import NoiseProcess


class Noised(NamedTuple):
    """A batch of the denoising loss, on the CPU: noised latents, their noise levels, (b,), and what is asked for."""

    noisy: Tensor
    t: Tensor
    target: Tensor


def noised_batch(noise: NoiseProcess, moments: Moments, batch: int, generator: torch.Generator) -> Noised:
    """Some images' latents, drawn from the VAE's posterior, each at a noise level of its own."""
    return noised_rows(noise, moments, torch.randint(0, len(moments.mean), (batch,), generator=generator), generator)


def noised_rows(noise: NoiseProcess, moments: Moments, rows: Tensor, generator: torch.Generator) -> Noised:
    """The same of images that are chosen already. rows: their numbers, (image,)."""
    shape = (len(rows), *moments.mean.shape[1:])
    latents = moments.mean.cpu()[rows] + moments.std.cpu()[rows] * torch.randn(shape, generator=generator)
    eps = torch.randn(shape, generator=generator)
    t = torch.randint(0, noise.last_timestep + 1, (len(rows),), generator=generator)
    return Noised(noise.add_noise(latents, eps, t), t, noise.target(latents, eps, t))


def dtype_of(denoiser: nn.Module) -> torch.dtype:
    """What a denoiser computes in. Weights that are kept in 4 bits lie in bytes, and do not say."""
    return next(parameter.dtype for parameter in denoiser.parameters() if parameter.is_floating_point())


def predict_noised(model: Model, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
    """The denoiser's output on noised latents, (b, c, h, w), in the denoiser's own precision."""
    dtype = dtype_of(model.denoiser)
    return model.predict(
        noisy.to(model.device, dtype), t.to(model.device), conditioning.map(lambda x: x.to(model.device, dtype))
    )


def has_branches(model: Model, guidance: float) -> bool:
    """Whether the family's pipeline sets two predictions against each other at this scale.

    It does not at 1 and below, of a distilled model, and where the scale is an input.
    """
    return why_no_branches(model, guidance) is None


def why_no_branches(model: Model, guidance: float) -> str | None:
    """Why there is no negative branch beside the prompt's at this scale, or None where there is."""
    if (reason := model.kind.why_no_negative) is not None:
        return reason
    if model.kind.unguided(model.pipe):
        return f"{model.source} is distilled, and asks for the prompt alone whatever the guidance"
    return None if guidance > 1 else f"guidance {guidance:g} asks for the prompt alone"


def guided(
    model: Model, latents: Tensor, t: int | Tensor, positive: Conditioning, empty: Conditioning, guidance: float
) -> Tensor:
    """The guided prediction for latents (b, c, h, w) at one timestep, or at one each, (b,), as the family guides.

    For most that is ε_∅ + s (ε_c − ε_∅). positive, empty: conditionings of b prompts. Without two branches the empty
    one is not asked.
    """
    levels = torch.full((len(latents),), t) if isinstance(t, int) else t
    if not has_branches(model, guidance):
        return predict_noised(model, latents, levels, positive._replace(guidance=guidance)).float()
    both = predict_noised(model, torch.cat([latents] * 2), levels.repeat(2), joined([positive, empty])).float()
    asked, plain = both.chunk(2)
    return model.kind.guide(asked, plain, guidance)


class Reader:
    """How a search predicts: what it differentiates, and what it holds that against.

    This one is unaware of guards: both are the denoiser's plain predictions. A search on pictures of the concept asks
    for what is `wanted` first, then reads its prompts, and lowers the square of the `residual`: edits may be switched
    off and on for the first, which must not lie between a forward pass and its gradient.

    words: of each row, those that its conditioning was read from; None: the conditioning is free, and says no words.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    @property
    def unit(self) -> float:
        """What residuals are measured in."""
        return 1.0

    def predict(
        self, noisy: Tensor, t: Tensor, conditioning: Conditioning, words: Sequence[PromptWords] | None = None
    ) -> Tensor:
        """The prediction of the system under attack, (b, c, h, w)."""
        del words  # a reader that is aware of guards tells them
        return predict_noised(self.model, noisy, t, conditioning)

    def reference(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The prediction of the original model, (b, c, h, w); the caller has switched the edits off."""
        return predict_noised(self.model, noisy, t, conditioning)

    def wanted(self, _noisy: Tensor, _t: Tensor, target: Tensor) -> Tensor:
        """What a prediction of pictures is held against, (b, c, h, w). target: what their noise asks for."""
        return target.to(self.model.device)

    def residual(
        self,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        wanted: Tensor,
        words: Sequence[PromptWords] | None = None,
    ) -> Tensor:
        """The prediction minus what is wanted of it, in its unit, (b, c, h, w), float32."""
        return (self.predict(noisy, t, conditioning, words).float() - wanted) / self.unit
