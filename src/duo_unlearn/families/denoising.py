"""One noised pass of the denoiser, and its squared error: what inversions, searches and fine-tuning share."""

from __future__ import annotations

from torch import Tensor

from .interface import Conditioning, Model


def predict_noised(model: Model, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
    """The denoiser's output on noised latents, (b, c, h, w), in the denoiser's own precision."""
    dtype = next(model.denoiser.parameters()).dtype
    return model.predict(
        noisy.to(model.device, dtype), t.to(model.device), conditioning.map(lambda x: x.to(model.device, dtype))
    )


class Reader:
    """How a search predicts: what it differentiates, and what it holds that against.

    This one is unaware of guards: both are the denoiser's plain predictions.
    """

    def __init__(self, model: Model) -> None:
        self.model = model

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The prediction of the system under attack, (b, c, h, w)."""
        return predict_noised(self.model, noisy, t, conditioning)

    def reference(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The prediction of the original model, (b, c, h, w); the caller has switched the edits off."""
        return predict_noised(self.model, noisy, t, conditioning)
