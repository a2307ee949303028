"""Adapters added up to one, exactly; and one adapter's change multiplied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DuoError
from .files import write_adapter, write_changes
from .interface import KINDS, Edit
from .lora import LoraEdit, padded
from .weights import LowRank, WeightEdit


def compose(parts: Sequence[LoraEdit], weights: Sequence[float], folder: Path) -> Path:
    """Write the exact sum Σ wᵢ·ΔWᵢ of adapters of one base as one adapter, whose rank is the sum of theirs.

    [w₁s₁B₁ w₂s₂B₂] · [A₁; A₂] = w₁s₁B₁A₁ + w₂s₂B₂A₂: nothing is approximated. Paper: violence is four, of weight 1.
    """
    bases = {str(part.provenance.get("base")) for part in parts}
    if len(bases) > 1:
        got = ", ".join(f"{part.path}: {part.provenance.get('base')}" for part in parts)
        raise DuoError("the adapters were made for different base models", got=got, hint="train them on the same model")
    if on := [part for part in parts if part.provenance.get("on")]:
        got = f"{on[0].path}, which acts on top of {on[0].provenance['on'][0]['name']}"
        raise DuoError("an adapter that lies on another edit cannot be added up", got=got, hint="train them together")
    ranks = [part.rank for part in parts]
    tensors: dict[str, Tensor] = {}
    for name in sorted({layer for part in parts for layer in part.layers}):
        downs, ups = [], []
        shape = next(part.layers[name] for part in parts if name in part.layers)
        for part, weight, rank in zip(parts, weights, ranks, strict=True):
            # A layer that one of them leaves alone counts as zero, so that all layers have one rank.
            empty = (torch.zeros(rank, *shape[0].shape[1:]), torch.zeros(len(shape[1]), rank, *shape[1].shape[2:]))
            down, up = padded(*part.layers.get(name, empty), rank)
            downs.append(down)
            ups.append(weight * part.scale * up)
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = torch.cat(downs), torch.cat(ups, dim=1)
    layers = {name.removeprefix(f"{parts[0].prefix}.") for part in parts for name in part.layers}
    config = {**parts[0].config, "r": sum(ranks), "lora_alpha": sum(ranks), "target_modules": layers}
    return write_adapter(folder, tensors, parts[0].prefix, config, _provenance(parts, weights))


def write_scaled(edit: Edit, strength: float, folder: Path, added: Mapping[str, Any] | None = None) -> Path:
    """Write an edit again with its change multiplied by `strength`, exactly; 1 gives the same tensors.

    added: entries of its provenance beside the edit's own. A full change of weights, which holds the new weights and
    not the change, is a DuoError.
    """
    # The file's own hash is written anew.
    described = {key: value for key, value in edit.provenance.items() if key != "sha256"} | dict(added or {})
    if isinstance(edit, LoraEdit):
        tensors = {f"{name}.lora_A.weight": down for name, (down, _) in edit.layers.items()}
        tensors |= {f"{name}.lora_B.weight": strength * up for name, (_, up) in edit.layers.items()}
        return write_adapter(folder, tensors, edit.prefix, edit.config, described)
    assert isinstance(edit, WeightEdit)
    changes = {name: LowRank(strength * c.up, c.down) for name, c in edit.changes.items() if isinstance(c, LowRank)}
    if len(changes) < len(edit.changes):
        got = f"{KINDS[edit.kind]} of {' and '.join(edit.parts)}"
        hint = "sample it at another strength, which needs its base: duo sample --strength"
        raise DuoError(f"the edit {edit.name} cannot be written at another strength", got=got, hint=hint)
    return write_changes(folder, changes, described)


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
