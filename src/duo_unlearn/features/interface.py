"""What a feature extractor is: images in, one row an image out, under a name that goes with every number made of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

import torch
from PIL import Image
from torch import Tensor

from ..errors import DuoError
from ..storage.pictures import read_image

BATCH: Final = 64
"""How many images are in memory at once."""


class Features(Protocol):
    """A feature extractor. name: the network, and the first digits of its weights' hash."""

    name: str

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Images (RGB, any size) → their features, (image, feature), float32."""
        ...


def feature_batches(features: Features, paths: Iterable[Path]) -> Iterator[Tensor]:
    """The features of image files, BATCH rows at a time. A file that cannot be read is a DuoError."""
    part: list[Image.Image] = []
    errors: list[str] = []
    for path in paths:
        image = read_image(path, errors)
        if image is None:
            raise DuoError(f"cannot read the image {path}", got=errors[0], hint="remove or replace it")
        part.append(image)
        if len(part) == BATCH:
            yield features(part)
            part = []
    if part:
        yield features(part)


def preservation(before: Tensor, after: Tensor) -> list[float]:
    """How alike the images of each pair are: (1 + cosine of their features) / 2. 1: the same image; 0.5: unrelated."""
    cosine = torch.nn.functional.cosine_similarity(before, after)
    shares: list[float] = ((1 + cosine) / 2).clamp(0, 1).tolist()
    return shares
