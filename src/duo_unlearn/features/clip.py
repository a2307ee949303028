"""The CLIP that images are compared with texts by: the mini world's own, or CLIP ViT-L/14."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..detectors.clip import DEFAULT_MODEL, load_clip
from ..storage.files import sha256_of

BATCH: Final = 16


class Clip(NamedTuple):
    """A CLIP model with what prepares its inputs. name: with the weights' hash where they are a file of ours."""

    name: str
    model: Any
    tokenize: Callable[[list[str]], Any]
    prepare: Callable[[list[Image.Image]], Tensor]


def why_no_clip(family: str) -> str | None:
    """Why there is no CLIP at hand without the network, or None."""
    from huggingface_hub import try_to_load_from_cache

    if family == "mini" or isinstance(try_to_load_from_cache(DEFAULT_MODEL, "model.safetensors"), str):
        return None
    return f"{DEFAULT_MODEL} is not in the hub's cache (hf download {DEFAULT_MODEL})"


@torch.no_grad()
def embed_images(family: str, images: Sequence[Image.Image]) -> Tensor:
    """(image, width) embeddings, as they are."""
    clip, parts = clip_for(family), []
    for first in range(0, len(images), BATCH):
        pixels = clip.prepare([image.convert("RGB") for image in images[first : first + BATCH]])
        parts.append(clip.model.visual_projection(clip.model.vision_model(pixel_values=pixels).pooler_output))
    return torch.cat(parts)


@torch.no_grad()
def embed_texts(family: str, texts: Sequence[str]) -> Tensor:
    """(text, width) embeddings, as they are; longer texts are cut."""
    clip, parts = clip_for(family), []
    for first in range(0, len(texts), BATCH):
        tokens = clip.tokenize(list(texts[first : first + BATCH]))
        parts.append(clip.model.text_projection(clip.model.text_model(**tokens).pooler_output))
    return torch.cat(parts)


def clip_score(family: str, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
    """The cosine of each image's and its text's embedding, −1 to 1. Scores of two families are not comparable."""
    return cosines(embed_images(family, images), embed_texts(family, texts))


def cosines(images: Tensor, texts: Tensor) -> list[float]:
    """Of rows of embeddings, one by one."""
    found: list[float] = torch.nn.functional.cosine_similarity(images, texts).tolist()
    return found


def clip_for(family: str) -> Clip:
    """The CLIP of a family, read once a process. DuoError: it cannot be had."""
    return _mini() if family == "mini" else _large()


@functools.cache
def _mini() -> Clip:
    from ..mini.model.bundle import load_clip, weights_folder

    folder = weights_folder()
    model, tokenizer = load_clip(folder, torch.device("cpu"))

    def prepare(images: list[Image.Image]) -> Tensor:
        arrays = [np.asarray(image.resize((64, 64), Image.Resampling.BOX)) for image in images]
        return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div(127.5).sub(1)

    name = f"mini-clip@{sha256_of(folder / 'clip' / 'model.safetensors')[:8]}"
    return Clip(name, model, _tokenize(tokenizer, int(model.config.text_config.max_position_embeddings)), prepare)


@functools.cache
def _large() -> Clip:
    model, tokenizer, processor, weights = load_clip(DEFAULT_MODEL)

    def prepare(images: list[Image.Image]) -> Tensor:
        pixels: Tensor = processor(images=images, return_tensors="pt").pixel_values
        return pixels

    return Clip(f"clip-vit-large-patch14@{weights}", model, _tokenize(tokenizer, 77), prepare)


def _tokenize(tokenizer: Any, length: int) -> Callable[[list[str]], Any]:
    return lambda texts: tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
