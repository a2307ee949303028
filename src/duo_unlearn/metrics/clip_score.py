"""CLIP score: how near an image is to a text, by the mini world's CLIP or by CLIP ViT-L/14."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import DuoError

MODEL = "openai/clip-vit-large-patch14"
BATCH = 16


@torch.no_grad()
def clip_score(family: str, images: Sequence[Image.Image], texts: Sequence[str]) -> list[float]:
    """The cosine of each image's and its text's embedding, −1 to 1. Scores of two families are not comparable."""
    model, tokenize, prepare = _clip(family == "mini")
    found: list[float] = []
    for first in range(0, len(images), BATCH):
        pixels = prepare([image.convert("RGB") for image in images[first : first + BATCH]])
        tokens = tokenize(list(texts[first : first + BATCH]))
        seen = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
        read = model.text_projection(model.text_model(**tokens).pooler_output)
        found += torch.nn.functional.cosine_similarity(seen, read).tolist()
    return found


@functools.cache
def _clip(mini: bool) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image preparation, read once a process."""
    if mini:
        from ..mini.bundle import load_clip, weights_folder

        model, tokenizer = load_clip(weights_folder(), torch.device("cpu"))

        def prepare(images: list[Image.Image]) -> torch.Tensor:
            arrays = [np.asarray(image.resize((64, 64), Image.Resampling.BOX)) for image in images]
            return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().div(127.5).sub(1)

        length = int(model.config.text_config.max_position_embeddings)
        return model, _tokenize(tokenizer, length), prepare
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    try:
        large: Any = CLIPModel.from_pretrained(MODEL, dtype=torch.float32, use_safetensors=True)
        tokenizer_large = CLIPTokenizer.from_pretrained(MODEL)
        processor: Any = CLIPImageProcessor.from_pretrained(MODEL)
    except (OSError, ValueError) as error:
        hint = "a network that reaches the hub, or its cache"
        raise DuoError(f"the CLIP score needs {MODEL}", got=str(error)[:120].replace("\n", " "), hint=hint) from error
    return (
        large.requires_grad_(False).eval(),
        _tokenize(tokenizer_large, 77),
        (lambda images: processor(images=images, return_tensors="pt").pixel_values),
    )


def _tokenize(tokenizer: Any, length: int) -> Any:
    return lambda texts: tokenizer(texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
