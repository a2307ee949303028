"""Perceptual distance between two images, named by its feature extractor so that numbers are never mixed up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..storage import sha256_of


class Features(Protocol):
    """Turns images into unit vectors. name: the extractor and its weights' hash."""

    name: str

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """(image, feature), each row of length 1."""
        ...


class MiniClipFeatures:
    """The image tower of the mini world's CLIP model."""

    def __init__(self) -> None:
        from ..mini.bundle import load_clip, weights_folder

        folder = weights_folder()
        self.model = load_clip(folder, torch.device("cpu"))[0]
        self.name = f"mini-clip@{sha256_of(folder / 'clip' / 'model.safetensors')[:8]}"

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """(image, feature), each row of length 1."""
        parts = []
        for first in range(0, len(images), 64):
            pixels = _pixels(images[first : first + 64], 64)
            pooled = self.model.vision_model(pixel_values=pixels).pooler_output
            parts.append(torch.nn.functional.normalize(pooled.flatten(1), dim=1))
        return torch.cat(parts)


class ThumbnailFeatures:
    """Centred 32×32 pixels: no network, so a coarse distance. For models whose run has no feature network at hand."""

    name = "thumbnail-32"

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """(image, feature), each row of length 1."""
        flat = _pixels(images, 32).flatten(1)
        return torch.nn.functional.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


def features_for(family: str) -> Features:
    """The feature extractor of a family."""
    return MiniClipFeatures() if family == "mini" else ThumbnailFeatures()


def preservation(features: Features, before: Sequence[Path], after: Sequence[Path]) -> list[float]:
    """Per image pair, 1 − half the distance of the unit vectors' cosines: 1 is the same image, 0.5 unrelated."""
    first, second = features(_open(before)), features(_open(after))
    return ((1 + (first * second).sum(dim=1)) / 2).clamp(0, 1).tolist()


def _open(paths: Sequence[Path]) -> list[Image.Image]:
    images = []
    for path in paths:
        with Image.open(path) as image:
            images.append(image.convert("RGB"))
    return images


def _pixels(images: Sequence[Image.Image], size: int) -> Tensor:
    arrays = [np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BOX)) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div(127.5).sub(1)
