"""CLIP, from a folder or the hub: the only loader, and what images and texts of a model family are compared by."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor

from ..errors import DuoError
from ..progress import no_loading_bars
from ..storage.hub import files_here_alone, why_not_loaded
from .interface import Clip, ClipSource
from .registry import clip_source
from .weights import DEFAULT_CLIP, files_digest, weights_digest, why_no_weights

BATCH: Final = 16
"""How many images or texts are embedded at once."""


@functools.cache
def load_clip(source: str) -> Clip:
    """A CLIP in transformers' format, read once a process. source: a folder or a hub id. DuoError: it cannot be had."""
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    here = files_here_alone(source)
    try:
        with no_loading_bars() if here else contextlib.nullcontext():
            model: Any = CLIPModel.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, local_files_only=here
            )
        tokenizer = CLIPTokenizer.from_pretrained(source, local_files_only=here)
        processor: Any = CLIPImageProcessor.from_pretrained(source, local_files_only=here)
    except (OSError, ValueError) as error:
        hint = "a folder with a CLIP in transformers' format, or a hub id that can be reached"
        raise DuoError(f"cannot load the CLIP {source}", got=why_not_loaded(error, source), hint=hint) from error

    def prepare(images: list[Image.Image]) -> Tensor:
        pixels: Tensor = processor(images=images, return_tensors="pt").pixel_values
        return pixels

    weights = weights_digest(source, model.config)
    name = f"{source.rstrip('/').rsplit('/', 1)[-1]}@{weights}"
    return Clip(name, weights, model.requires_grad_(False).eval(), tokenize_with(tokenizer, model), prepare)


def tokenize_with(tokenizer: Any, model: Any) -> Callable[[list[str]], Any]:
    """What turns texts into the arguments of a CLIP's text tower; longer texts are cut to its length."""
    length = int(model.config.text_config.max_position_embeddings)
    return lambda texts: tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")


LARGE: Final = ClipSource(
    lambda: load_clip(DEFAULT_CLIP), lambda: why_no_weights(DEFAULT_CLIP), lambda: files_digest(DEFAULT_CLIP)
)


class ClipFeatures:
    """The image embeddings of a family's CLIP, not normalised: what CMMD is measured on."""

    def __init__(self, family: str) -> None:
        self.clip = clip_source(family).load()
        self.name = self.clip.name

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Images → (image, width)."""
        return in_batches(self.clip.embed_images, images)


def in_batches(embed: Callable[[list[Any]], Tensor], items: Sequence[Any]) -> Tensor:
    """The embeddings of all items, BATCH at a time."""
    return torch.cat([embed(list(items[first : first + BATCH])) for first in range(0, len(items), BATCH)])


def why_no_clip(family: str) -> str | None:
    """Why the CLIP of a family is not at hand without the network, or None."""
    return clip_source(family).why_not()


def known_clip(family: str) -> str | None:
    """The hash of the weights of a family's CLIP, from files that are here; None: the hub has them."""
    return clip_source(family).digest()


def embed_texts(family: str, texts: Sequence[str]) -> Tensor:
    """The embeddings of texts by a family's CLIP, (text, width), not normalised; longer texts are cut."""
    return in_batches(clip_source(family).load().embed_texts, texts)


def clip_score(family: str, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
    """The cosine of each image's and its text's embedding, −1 to 1. Scores by two CLIPs are not comparable."""
    return cosines(ClipFeatures(family)(images), embed_texts(family, texts))


def clip_similarity(family: str, images: Sequence[Image.Image], others: Sequence[Image.Image]) -> list[float]:
    """The cosine of the embeddings of the images of each pair, −1 to 1."""
    embed = ClipFeatures(family)
    return cosines(embed(images), embed(others))


def cosines(images: Tensor, others: Tensor) -> list[float]:
    """The cosine of each row of image embeddings with the same row of other embeddings."""
    values: list[float] = torch.nn.functional.cosine_similarity(images, others).tolist()
    return values
