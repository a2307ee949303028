"""Edits as files: a safetensors file with provenance.json beside it, whose hash is checked at every load.

A LoRA is in diffusers' form, so plain `pipe.load_lora_weights(folder)` reads it. Changes of named weights lie under
"PART.PARAMETER.up" and ".down" (low rank), or ".value" (the whole new weight).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import DuoError
from ..families.interface import Model
from ..storage.files import read_tensors, sha256_of, write_json, write_tensors
from .interface import KINDS, Edit
from .lora import NAME, LoraEdit, adapter_tensors, padded
from .provenance import CHANGES, PROVENANCE, WEIGHTS, edit_file, edit_hash, read_provenance
from .weights import Change, LowRank, Replacement, WeightEdit


def save_adapter(model: Model, folder: Path, provenance: Mapping[str, Any]) -> Path:
    """Write the adapter that a training attached, as diffusers LoRA safetensors with its alpha; gives the file."""
    # get_peft_model_state_dict keeps PEFT's names; diffusers reads those under the denoiser's name.
    prefix = model.denoiser_name
    tensors = {f"{prefix}.{name}": value.detach().float() for name, value in adapter_tensors(model.denoiser).items()}
    denoiser: Any = model.denoiser
    return write_adapter(folder, tensors, prefix, denoiser.peft_config[NAME].to_dict(), provenance)


def write_adapter(
    folder: Path, tensors: Mapping[str, Tensor], prefix: str, config: Mapping[str, Any], provenance: Mapping[str, Any]
) -> Path:
    """Write adapter tensors under their diffusers names, with PEFT's config (alpha) and provenance as metadata."""
    # Without this entry alpha is lost, and diffusers reloads alpha = rank.
    described = {f"{prefix}.{key}": sorted(v) if isinstance(v, set) else v for key, v in config.items()}
    return _write(
        folder / WEIGHTS,
        tensors,
        {"format": "pt", "lora_adapter_metadata": json.dumps(described, default=str, sort_keys=True)},
        provenance,
    )


def write_changes(folder: Path, changes: Mapping[str, Change], provenance: Mapping[str, Any]) -> Path:
    """Write changes of named weights; gives the file."""
    tensors = {
        f"{name}.{field}": value for name, change in changes.items() for field, value in change._asdict().items()
    }
    return _write(folder / CHANGES, tensors, {"format": "pt"}, provenance)


def _write(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], provenance: Mapping[str, Any]
) -> Path:
    content = {**metadata, "duo_provenance": json.dumps(dict(provenance), sort_keys=True)}
    write_tensors(path, tensors, content)
    write_json(path.parent / PROVENANCE, {**provenance, "sha256": sha256_of(path)})
    return path


def read_edit(source: Path, name: str = NAME, *, strength: float = 1.0) -> Edit:
    """Read an edit that this package wrote, its hash checked; another file, or numbers not finite, is a DuoError."""
    path, sha256 = edit_file(source), edit_hash(source)
    tensors, metadata = read_tensors(path)
    provenance = read_provenance(path.parent) or _inner_provenance(metadata)
    if any(key.endswith((".up", ".down", ".value")) for key in tensors):
        return WeightEdit(name, sha256, path, _changes(path, tensors), provenance, strength)
    try:
        described = json.loads(metadata["lora_adapter_metadata"])
        prefix = next(iter(tensors)).partition(".")[0]
        config = {key.removeprefix(f"{prefix}."): value for key, value in described.items()}
        scale = config["lora_alpha"] / config["r"]
        names = sorted({name.rpartition(".lora_")[0] for name in tensors})
        layers = {n: (tensors[f"{n}.lora_A.weight"], tensors[f"{n}.lora_B.weight"]) for n in names}
    except (KeyError, ValueError, StopIteration, TypeError, AttributeError, ZeroDivisionError) as error:
        hint = "an edit as `duo train` writes it; `duo attack --lora FILE` takes adapters of other tools"
        raise DuoError(f"{path} is not an edit of this package", got=f"no {error}", hint=hint) from error
    for layer, (down, up) in layers.items():
        _check_ranks(path, layer, down, up)
    return LoraEdit(name, sha256, path, layers, scale, prefix, config, provenance, strength)


def why_no_lora(edit: Edit) -> str | None:
    """Why an edit is no adapter and does not equal one; None for adapters and low-rank changes of the denoiser."""
    if edit.kind == "lora" or (edit.kind == "low-rank" and edit.parts in (("unet",), ("transformer",))):
        return None
    return f"it is {KINDS[edit.kind]} of {' and '.join(edit.parts)}"


def as_lora(edit: Edit) -> LoraEdit:
    """The adapter that an edit is, or that it equals. A kind that cannot be one is a DuoError."""
    if (reason := why_no_lora(edit)) is not None:
        hint = "duo export --format merged, which takes every kind"
        raise DuoError(f"the edit {edit.name} cannot be written as an adapter", got=reason, hint=hint)
    if isinstance(edit, LoraEdit):
        return edit
    assert isinstance(edit, WeightEdit)
    changes = {name.removesuffix(".weight"): c for name, c in edit.changes.items() if isinstance(c, LowRank)}
    rank = max(change.down.shape[0] for change in changes.values())
    layers = {name: padded(change.down, change.up, rank) for name, change in changes.items()}
    targets = sorted(name.partition(".")[2] for name in layers)
    config = {"r": rank, "lora_alpha": rank, "target_modules": targets, "peft_type": "LORA"}
    return LoraEdit(
        edit.name, edit.sha256, edit.path, layers, 1.0, edit.parts[0], config, edit.provenance, edit.strength
    )


def fused(edit: Edit) -> Edit:
    """An edit without a branch beside a layer: an adapter as the change of weights that it equals, others as they are.

    It samples faster, and the weights are put back bit for bit, as after any change of weights. Its images are the
    adapter's but for rounding. Weights in 8 bits cannot take it.
    """
    if not isinstance(edit, LoraEdit):
        return edit
    # A convolution's matrices are flattened: `LowRank` gives the product the weight's own shape.
    changes = {
        f"{layer}.weight": LowRank(edit.scale * up.float().flatten(1), down.float().flatten(1))
        for layer, (down, up) in edit.layers.items()
    }
    return WeightEdit(edit.name, edit.sha256, edit.path, changes, edit.provenance, edit.strength)


def _inner_provenance(metadata: Mapping[str, str]) -> dict[str, Any]:
    """What the file itself says of where it comes from, for a file that left its folder."""
    try:
        content = json.loads(metadata.get("duo_provenance", "{}"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _changes(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Change]:
    changes: dict[str, Change] = {}
    grouped: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, field = key.rpartition(".")
        grouped.setdefault(name, {})[field] = value
    for name, fields in grouped.items():
        if set(fields) == {"up", "down"}:
            _check_ranks(path, name, fields["down"], fields["up"])
            changes[name] = LowRank(**fields)
        elif set(fields) == {"value"}:
            changes[name] = Replacement(**fields)
        else:
            got = f"{', '.join(sorted(fields))} for {name}"
            raise DuoError(f"{path} is not an edit of this package", got=got, hint="up and down, or value")
    return changes


def _check_ranks(path: Path, name: str, down: Tensor, up: Tensor) -> None:
    if down.ndim < 2 or up.ndim < 2 or down.shape[0] != up.shape[1]:
        got = f"{name}: down {tuple(down.shape)}, up {tuple(up.shape)}"
        raise DuoError(f"{path} is not an edit of this package", got=got, hint="(rank, in) and (out, rank)")


def check_base(edit: Edit, model: Model) -> None:
    """Fail for an edit that was made for another base model than this one."""
    base = edit.provenance.get("base")
    if base is not None and base != model.fingerprint():
        hint = "load the model it was trained on, or train again"
        got = f"{base}, not {model.fingerprint()}"
        raise DuoError(f"the edit {edit.name} was made for another base model", got=got, hint=hint)


def with_strength(edit: Edit, strength: float) -> Edit:
    """The same edit at another strength."""
    assert isinstance(edit, LoraEdit | WeightEdit)
    return dataclasses.replace(edit, strength=strength)
