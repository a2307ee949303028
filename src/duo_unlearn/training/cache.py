"""What a training step reads instead of images and prompts: VAE moments and text embeddings, computed once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DuoError
from ..families.base import Model
from ..records import Captions, Pair
from ..storage import read_tensors, write_tensors


class Cache(NamedTuple):
    """Moments of every pair's members, (pair, c, h, w), and conditioning.

    empty: the empty prompt, (token, width). safe_text, unsafe_text: each member's prompt, (pair, token, width);
    None when every term has the empty prompt.
    """

    safe_mean: Tensor
    safe_std: Tensor
    unsafe_mean: Tensor
    unsafe_std: Tensor
    empty: Tensor
    safe_text: Tensor | None = None
    unsafe_text: Tensor | None = None


def build_cache(
    model: Model, pairs: Sequence[Pair], folder: Path, path: Path, *, captions: Captions = "none", batch: int = 4
) -> Cache:
    """Encode all pairs, or read `path` if it was made from the same pairs, model and captions.

    pairs: those that training uses. folder: where their files are.
    """
    described = [[p.name, p.unsafe_sha256, p.safe_sha256, p.unsafe_prompt, p.safe_prompt] for p in pairs]
    key = hashlib.sha256(json.dumps([described, model.fingerprint(), captions]).encode()).hexdigest()
    if path.exists():
        tensors, metadata = read_tensors(path)
        if metadata.get("key") == key:
            return Cache(**tensors)
    cache = _encode(model, pairs, folder, captions=captions, batch=batch)
    write_tensors(path, {name: value for name, value in cache._asdict().items() if value is not None}, {"key": key})
    return cache


def _encode(model: Model, pairs: Sequence[Pair], folder: Path, *, captions: Captions, batch: int) -> Cache:
    from ..pairs.images import open_image

    def moments(files: list[str]) -> tuple[Tensor, Tensor]:
        parts = [
            model.encode_images([open_image(folder / name) for name in files[i : i + batch]])
            for i in range(0, len(files), batch)
        ]
        return torch.cat([p.mean.cpu() for p in parts]), torch.cat([p.std.cpu() for p in parts])

    safe, unsafe = moments([p.safe for p in pairs]), moments([p.unsafe for p in pairs])
    empty = model.encode_prompts([""])[0].float().cpu()
    if captions == "none":
        return Cache(*safe, *unsafe, empty)
    if unnamed := [p.name for p in pairs if p.safe_prompt is None or p.unsafe_prompt is None]:
        hint = "--set train.captions=none (the paper's way), or give prompts in a manifest"
        raise DuoError(
            f"captions: {captions} needs the prompts of every pair", got=f"none for pair {unnamed[0]}", hint=hint
        )

    def text(prompts: list[str]) -> Tensor:
        return torch.cat([model.encode_prompts([p]).float().cpu() for p in prompts])

    unsafe_text = text([p.unsafe_prompt or "" for p in pairs])
    safe_text = text([p.safe_prompt or "" for p in pairs]) if captions == "dual" else unsafe_text.clone()
    return Cache(*safe, *unsafe, empty, safe_text, unsafe_text)
