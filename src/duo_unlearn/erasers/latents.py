"""What a training step reads instead of images and prompts: VAE moments and text embeddings, computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import DuoError
from ..families.interface import Conditioning, Model, Moments, joined
from ..records import Captions, Pair
from ..storage.files import digest, read_tensors, write_tensors
from .interface import EraserContext


class Cache(NamedTuple):
    """Moments of every pair's members, and conditioning.

    empty: the empty prompt's. safe_text, unsafe_text: each pair's; None when every term has the empty prompt.
    """

    safe: Moments
    unsafe: Moments
    empty: Conditioning
    safe_text: Conditioning | None = None
    unsafe_text: Conditioning | None = None


def _flat(cache: Cache) -> dict[str, Tensor]:
    """Tensors by name, "PART.FIELD"; what is absent has none."""
    parts = {name: part for name, part in cache._asdict().items() if part is not None}
    fields = {f"{name}.{field}": value for name, part in parts.items() for field, value in part._asdict().items()}
    return {name: value for name, value in fields.items() if value is not None}


def _from_flat(tensors: Mapping[str, Tensor]) -> Cache:
    """`_flat` undone."""

    def fields(part: str) -> dict[str, Tensor]:
        return {name.partition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{part}.")}

    def text(part: str) -> Conditioning | None:
        found = fields(part)
        return Conditioning(found["text"], found.get("pooled")) if found else None

    moments = (Moments(**fields("safe")), Moments(**fields("unsafe")))
    empty = text("empty")
    assert empty is not None
    return Cache(*moments, empty, text("safe_text"), text("unsafe_text"))


def pair_latents(context: EraserContext) -> Cache:
    """The moments of the pairs' members, with the empty prompt alone: for erasers beside DUO, made once a run."""
    path = context.run.moments.with_name("latents.safetensors")
    return build_cache(context.model, context.pairs, context.run.pairs, path)


def build_cache(
    model: Model, pairs: Sequence[Pair], folder: Path, path: Path, *, captions: Captions = "none", batch: int = 4
) -> Cache:
    """Encode all pairs, or read `path` if it was made from the same pairs, model and captions.

    pairs: those that training uses. folder: where their files are. Moments that another file beside `path` has of the
    same pairs are taken from there: files differ in captions.
    """
    described = [[pair.name, *pair.content] for pair in pairs]
    key = digest([described, model.fingerprint(), model.variant, model.resolution, captions])
    if path.exists():
        tensors, metadata = read_tensors(path)
        if metadata.get("key") == key:
            return _from_flat(tensors)
    pictures = [[pair.unsafe_sha256, pair.safe_sha256] for pair in pairs]
    of_pictures = digest([pictures, model.fingerprint(), model.variant, model.resolution])
    moments = _moments_beside(path, of_pictures) or _moments(model, pairs, folder, batch)
    cache = _with_texts(model, pairs, moments, captions)
    write_tensors(path, _flat(cache), {"key": key, "moments": of_pictures})
    return cache


def _moments_beside(path: Path, key: str) -> tuple[Moments, Moments] | None:
    """The moments of both members, of a key, in another file of the same folder; None where none has them."""
    for other in sorted(path.parent.glob("moments*.safetensors")) + sorted(path.parent.glob("latents*.safetensors")):
        try:
            tensors, metadata = read_tensors(other)
        except DuoError:  # its own eraser reports it
            continue
        if metadata.get("moments") == key:
            found = _from_flat(tensors)
            return found.safe, found.unsafe
    return None


def _moments(model: Model, pairs: Sequence[Pair], folder: Path, batch: int) -> tuple[Moments, Moments]:
    """The moments of both members, encoded."""
    from ..storage.pictures import open_image

    def encoded(files: list[str]) -> Moments:
        parts = [
            model.encode_images([open_image(folder / name) for name in files[i : i + batch]])
            for i in range(0, len(files), batch)
        ]
        # In the order that a file keeps: convolutions round otherwise on tensors whose channels are last.
        return Moments(
            torch.cat([p.mean.cpu() for p in parts]).contiguous(), torch.cat([p.std.cpu() for p in parts]).contiguous()
        )

    return encoded([p.safe for p in pairs]), encoded([p.unsafe for p in pairs])


def _with_texts(model: Model, pairs: Sequence[Pair], moments: tuple[Moments, Moments], captions: Captions) -> Cache:
    """Moments with what the captions read as."""

    def text(prompts: list[str]) -> Conditioning:
        return joined([model.condition([p]).map(lambda x: x.float().cpu()) for p in prompts])

    empty = text([""])
    if captions == "none":
        return Cache(*moments, empty)
    if unnamed := [p.name for p in pairs if not p.has_prompts]:
        hint = "captions none (for DUO, as its paper: --set train.captions=none), or give prompts in a manifest"
        raise DuoError(
            f"captions: {captions} needs the prompts of every pair", got=f"none for pair {unnamed[0]}", hint=hint
        )

    unsafe_text = text([p.unsafe_prompt or "" for p in pairs])
    safe_text = text([p.safe_prompt or "" for p in pairs]) if captions == "dual" else unsafe_text.map(Tensor.clone)
    return Cache(*moments, empty, safe_text, unsafe_text)
