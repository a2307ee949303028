"""The CLIP of the mini world, which ships in the package: what the mini model's images are measured with."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..mini.model import bundle
from ..mini.world.scenes import SIZE
from ..storage.files import sha256_of
from .clip import tokenize_with
from .interface import Clip, ClipSource


@functools.cache
def mini_clip() -> Clip:
    """The mini world's CLIP, read once a process."""
    folder = bundle.weights_folder()
    model, tokenizer = bundle.load_clip(folder, torch.device("cpu"))
    weights = _digest()
    return Clip(f"mini-clip@{weights}", weights, model, tokenize_with(tokenizer, model), _prepare)


def _digest() -> str:
    return sha256_of(bundle.weights_folder() / "clip" / "model.safetensors")[:8]


def _prepare(images: list[Image.Image]) -> Tensor:
    arrays = [np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BOX)) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


MINI_CLIP: Final = ClipSource(mini_clip, lambda: None, _digest)


class MiniClipFeatures:
    """The pooled output of the image tower of the mini world's CLIP."""

    def __init__(self) -> None:
        clip = mini_clip()
        self.model, self.prepare, self.name = clip.model, clip.prepare, clip.name

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Images → (image, feature)."""
        pooled: Tensor = self.model.vision_model(pixel_values=self.prepare(list(images))).pooler_output
        return pooled.flatten(1)
