"""Adapters as files: reading one with its rank and alpha, and adding several up to one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import DuoError
from ..storage.files import read_tensors, sha256_of
from .lora import WEIGHTS, read_provenance, write_adapter


class StoredAdapter(NamedTuple):
    """An adapter file. layers: name (with the denoiser's prefix) → its down (rank, in) and up (out, rank) matrices.

    scale: alpha / rank, what the product of the two is multiplied by. config: PEFT's.
    """

    path: Path
    layers: Mapping[str, tuple[Tensor, Tensor]]
    scale: float
    prefix: str
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]


def adapter_file(source: Path) -> Path:
    """The weights of a run folder, an adapter folder, or a file of them."""
    candidates = (source / "adapter" / WEIGHTS, source / WEIGHTS, source)
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise DuoError(
            f"there is no adapter in {source}", hint="a run folder, an adapter folder, or its safetensors file"
        )
    return found


def read_adapter(source: Path) -> StoredAdapter:
    """Read an adapter that this package wrote; another file is a DuoError."""
    path = adapter_file(source)
    tensors, metadata = read_tensors(path)
    try:
        described = json.loads(metadata["lora_adapter_metadata"])
        prefix = next(iter(tensors)).partition(".")[0]
        config = {key.removeprefix(f"{prefix}."): value for key, value in described.items()}
        scale = config["lora_alpha"] / config["r"]
        names = sorted({name.rpartition(".lora_")[0] for name in tensors})
        layers = {n: (tensors[f"{n}.lora_A.weight"], tensors[f"{n}.lora_B.weight"]) for n in names}
    except (KeyError, ValueError, StopIteration, TypeError) as error:
        hint = "an adapter as `duo train` writes it; others carry no alpha"
        raise DuoError(f"{path} is not an adapter of this package", got=f"no {error}", hint=hint) from error
    return StoredAdapter(path, layers, scale, prefix, config, read_provenance(path.parent))


def compose(parts: Sequence[StoredAdapter], weights: Sequence[float], folder: Path) -> Path:
    """Write the exact sum Σ wᵢ·ΔWᵢ of adapters of one base as one adapter, whose rank is the sum of theirs.

    [w₁s₁B₁ w₂s₂B₂] · [A₁; A₂] = w₁s₁B₁A₁ + w₂s₂B₂A₂: nothing is approximated. Paper: violence is four, of weight 1.
    """
    bases = {str(part.provenance.get("base")) for part in parts}
    if len(bases) > 1:
        got = ", ".join(f"{part.path}: {part.provenance.get('base')}" for part in parts)
        raise DuoError("the adapters were made for different base models", got=got, hint="train them on the same model")
    ranks = [int(part.config["r"]) for part in parts]
    tensors: dict[str, Tensor] = {}
    for name in sorted({layer for part in parts for layer in part.layers}):
        downs, ups = [], []
        shape = next(part.layers[name] for part in parts if name in part.layers)
        for part, weight, rank in zip(parts, weights, ranks, strict=True):
            # A layer that one of them leaves alone counts as zero, so that all layers have one rank.
            empty = (torch.zeros(rank, shape[0].shape[1]), torch.zeros(shape[1].shape[0], rank))
            down, up = part.layers.get(name, empty)
            downs.append(down)
            ups.append(weight * part.scale * up)
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = torch.cat(downs), torch.cat(ups, dim=1)
    layers = {name.removeprefix(f"{parts[0].prefix}.") for part in parts for name in part.layers}
    config = {**parts[0].config, "r": sum(ranks), "lora_alpha": sum(ranks), "target_modules": layers}
    return write_adapter(folder, tensors, parts[0].prefix, config, _provenance(parts, weights))


def scaled(part: StoredAdapter, strength: float, folder: Path) -> Path:
    """Write an adapter again with its change multiplied by `strength`; 1 gives the same tensors."""
    tensors = {f"{name}.lora_A.weight": down for name, (down, _) in part.layers.items()}
    tensors |= {f"{name}.lora_B.weight": strength * up for name, (_, up) in part.layers.items()}
    return write_adapter(folder, tensors, part.prefix, part.config, part.provenance)


def _provenance(parts: Sequence[StoredAdapter], weights: Sequence[float]) -> dict[str, Any]:
    return {
        "made_by": parts[0].provenance.get("made_by"),
        "concept": " + ".join(str(part.provenance.get("concept", "?")) for part in parts),
        "model": parts[0].provenance.get("model"),
        "base": parts[0].provenance.get("base"),
        "parts": [
            {"weight": weight, "sha256": sha256_of(part.path), **part.provenance}
            for part, weight in zip(parts, weights, strict=True)
        ],
    }
