"""What a feature extractor is: images in, one row an image out, under a name that goes with every number made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

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


class Clip(NamedTuple):
    """A CLIP model, float32, with what prepares its inputs.

    name: the model, and `weights`. weights: the first 8 digits of the weights' hash (from the hub: of their commit).
    tokenize: texts → the text tower's arguments; longer texts are cut. prepare: RGB images → pixels, (image, 3, h, w).
    """

    name: str
    weights: str
    model: Any
    tokenize: Callable[[list[str]], Any]
    prepare: Callable[[list[Image.Image]], Tensor]

    @torch.no_grad()
    def embed_images(self, images: Sequence[Image.Image]) -> Tensor:
        """Images → their embeddings, (image, width), not normalised."""
        pixels = self.prepare([image.convert("RGB") for image in images])
        embeddings: Tensor = self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output)
        return embeddings

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts → their embeddings, (text, width), not normalised."""
        tokens = self.tokenize(list(texts))
        embeddings: Tensor = self.model.text_projection(self.model.text_model(**tokens).pooler_output)
        return embeddings


class ClipSource(NamedTuple):
    """A CLIP of the registry. load(): the CLIP, read once a process; a DuoError where it cannot be had.

    why_not(): why it is not at hand without the network, or None. digest(): its `weights`, from files that are here;
    None: the hub has them.
    """

    load: Callable[[], Clip]
    why_not: Callable[[], str | None]
    digest: Callable[[], str | None]
