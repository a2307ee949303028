"""Adapters added up to one, exactly; and one adapter's change multiplied."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DuoError
from .files import write_adapter
from .lora import LoraEdit, padded


def compose(parts: Sequence[LoraEdit], weights: Sequence[float], folder: Path) -> Path:
    """Write the exact sum Σ wᵢ·ΔWᵢ of adapters of one base as one adapter, whose rank is the sum of theirs.

    [w₁s₁B₁ w₂s₂B₂] · [A₁; A₂] = w₁s₁B₁A₁ + w₂s₂B₂A₂: nothing is approximated. Paper: violence is four, of weight 1.
    """
    bases = {str(part.provenance.get("base")) for part in parts}
    if len(bases) > 1:
        got = ", ".join(f"{part.path}: {part.provenance.get('base')}" for part in parts)
        raise DuoError("the adapters were made for different base models", got=got, hint="train them on the same model")
    ranks = [part.rank for part in parts]
    tensors: dict[str, Tensor] = {}
    for name in sorted({layer for part in parts for layer in part.layers}):
        downs, ups = [], []
        shape = next(part.layers[name] for part in parts if name in part.layers)
        for part, weight, rank in zip(parts, weights, ranks, strict=True):
            # A layer that one of them leaves alone counts as zero, so that all layers have one rank.
            empty = (torch.zeros(rank, shape[0].shape[1]), torch.zeros(shape[1].shape[0], rank))
            down, up = padded(*part.layers.get(name, empty), rank)
            downs.append(down)
            ups.append(weight * part.scale * up)
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = torch.cat(downs), torch.cat(ups, dim=1)
    layers = {name.removeprefix(f"{parts[0].prefix}.") for part in parts for name in part.layers}
    config = {**parts[0].config, "r": sum(ranks), "lora_alpha": sum(ranks), "target_modules": layers}
    return write_adapter(folder, tensors, parts[0].prefix, config, _provenance(parts, weights))


def write_scaled(part: LoraEdit, strength: float, folder: Path) -> Path:
    """Write an adapter again with its change multiplied by `strength`; 1 gives the same tensors."""
    tensors = {f"{name}.lora_A.weight": down for name, (down, _) in part.layers.items()}
    tensors |= {f"{name}.lora_B.weight": strength * up for name, (_, up) in part.layers.items()}
    # The file's own hash is written anew.
    provenance = {key: value for key, value in part.provenance.items() if key != "sha256"}
    return write_adapter(folder, tensors, part.prefix, part.config, provenance)


def _provenance(parts: Sequence[LoraEdit], weights: Sequence[float]) -> dict[str, Any]:
    return {
        "made_by": parts[0].provenance.get("made_by"),
        "concept": " + ".join(str(part.provenance.get("concept", "?")) for part in parts),
        "model": parts[0].provenance.get("model"),
        "base": parts[0].provenance.get("base"),
        "parts": [
            {"weight": weight, **part.provenance, "sha256": part.sha256}
            for part, weight in zip(parts, weights, strict=True)
        ],
    }
