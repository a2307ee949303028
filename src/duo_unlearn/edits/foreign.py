"""Edits that others made, in their own forms: an erased diffusers folder, a LoRA file, state dicts of one part.

Each is turned into an edit of ours, checked against the base model, and written whole into a folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from ..errors import DuoError
from ..families.identify import family_of
from ..families.interface import Model
from ..families.parts import variant_of, weight_files
from ..storage.files import digest, read_json, read_tensors, sha256_of
from .files import read_edit, write_adapter, write_changes
from .interface import Edit
from .lora import LoraEdit, check_layers
from .provenance import edit_hash
from .weights import Change, LowRank, Replacement, locate

_PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
_PEFT: Final = "base_model.model."


def import_folder(model: Model, source: Path, folder: Path, name: str) -> Edit:
    """An erased model in diffusers' format as a full change of the weights that differ from the base's."""
    if not source.is_dir():
        hint = "--erased FOLDER of a diffusers model; for files: --lora, --unet, --text-encoder"
        raise DuoError(f"there is no erased model {source}", got="no such folder", hint=hint)
    family = family_of(str(source))
    if family != model.family:
        raise DuoError(
            f"{source} is no edit of the base model", got=f"a model of {family}, the base is of {model.family}",
            hint="--model: the base that it was erased from",
        )  # fmt: skip
    changes: dict[str, Change] = {}
    hashes = {}
    for part in model.kind.parts:
        files = weight_files(source / part, variant_of(source))
        if getattr(model.pipe, part) is None:
            continue
        tensors: dict[str, Tensor] = {}
        for file in files:
            tensors |= read_tensors(file)[0]
            hashes[f"{part}/{file.name}"] = sha256_of(file)
        changes |= _replacements(model, part, tensors, source, whole=True)
    if not changes:
        hint = "name the folder of the erased model, and with --model its base"
        raise DuoError(f"{source} has the base model's weights", got="no weight differs", hint=hint)
    return _written(model, changes, folder, name, source, digest(hashes))


def import_state(model: Model, part: str, source: Path, folder: Path, name: str) -> Edit:
    """A safetensors state dict of one part, whole or with some of its weights, as a full change of those."""
    changes = _replacements(model, part, _tensors(source)[0], source, whole=False)
    if not changes:
        raise DuoError(f"{source} has the base model's weights", got="no weight differs", hint="check the file")
    return _written(model, changes, folder, name, source, sha256_of(source))


def import_lora(model: Model, source: Path, folder: Path, name: str) -> Edit:
    """A LoRA of diffusers, plain PEFT or kohya. Layers of a text encoder make it a low-rank change of both parts."""
    if source.is_dir():
        files = sorted(source.glob("*.safetensors"))
        if len(files) != 1:
            got = f"{len(files)} safetensors files in it"
            raise DuoError(f"{source} is not one adapter", got=got, hint="--lora FILE.safetensors")
        source = files[0]
    layers = _lora_layers(model, source)
    provenance = _provenance(model, source, sha256_of(source))
    if all(layer.startswith(f"{model.denoiser_name}.") for layer in layers):
        rank = max(down.shape[0] for down, _ in layers.values())
        names = [layer.partition(".")[2] for layer in layers]
        config = {"r": rank, "lora_alpha": rank, "target_modules": names, "peft_type": "LORA"}
        edit = LoraEdit(name, "", source, layers, 1.0, model.denoiser_name, config, provenance)
        check_layers(model, edit)
        tensors = {f"{layer}.lora_A.weight": down for layer, (down, _) in layers.items()}
        tensors |= {f"{layer}.lora_B.weight": up for layer, (_, up) in layers.items()}
        write_adapter(folder, tensors, model.denoiser_name, config, provenance)
        return read_edit(folder, name)
    changes: dict[str, Change] = {
        f"{layer}.weight": LowRank(up.flatten(1), down.flatten(1)) for layer, (down, up) in layers.items()
    }
    if unknown := [key for key in changes if locate(model, key) is None]:
        raise DuoError(f"{source} does not fit the model", got=f"no layer {unknown[0]}", hint="--model: its own base")
    return _written(model, changes, folder, name, source, sha256_of(source))


def _tensors(source: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    if source.suffix in _PICKLES:
        hint = "convert it to .safetensors where you trust it"
        raise DuoError(f"{source} is a pickle that could run code", hint=hint)
    if not source.is_file():
        raise DuoError(f"there is no file {source}", hint="a .safetensors file")
    tensors, metadata = read_tensors(source)
    if not tensors:
        raise DuoError(f"{source} holds no weights", hint="a .safetensors file with weights")
    return tensors, metadata


def _replacements(
    model: Model, part: str, tensors: Mapping[str, Tensor], source: Path, *, whole: bool
) -> dict[str, Change]:
    """The weights that differ from the base's, every key checked. whole: none may be missing."""
    own: Mapping[str, Tensor] = dict(getattr(model.pipe, part).named_parameters())
    plain = {_plain_key(key, part): value for key, value in tensors.items()}
    # Buffers such as position ids, which older files carry, change nothing.
    unknown = [key for key in plain if key not in own and plain[key].is_floating_point()]
    missing = [key for key in own if key not in plain] if whole else []
    shapes = [key for key, value in plain.items() if key in own and value.shape != own[key].shape]
    for keys, what in ((unknown, "unknown weight"), (missing, "missing weight"), (shapes, "weight of another size")):
        if keys:
            got = f"{what} {part}.{keys[0]}" + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")
            hint = "--model: the base that it was made from, of the same architecture"
            raise DuoError(f"{source} does not fit the model", got=got, hint=hint)
    return {
        f"{part}.{key}": Replacement(value)
        for key, value in plain.items()
        if key in own and not torch.equal(value.to(own[key]), own[key])
    }


def _plain_key(key: str, part: str) -> str:
    return key.removeprefix(f"{part}.")


def _lora_layers(model: Model, source: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer's full name → down and up, alpha / rank multiplied into up. Unknown or lone keys are a DuoError."""
    tensors, metadata = _tensors(source)
    alphas: Mapping[str, float] = {}
    if any(key.startswith(_PEFT) for key in tensors):
        tensors, scale = _from_peft(model, source, tensors)
    else:
        scale = _scale_of(metadata)
        try:
            tensors, alphas = model.pipe.lora_state_dict(dict(tensors)), {}
            if isinstance(tensors, tuple):
                tensors, alphas = tensors[0], tensors[1] or {}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            hint = "a LoRA of diffusers, PEFT or kohya for this family"
            raise DuoError(f"{source} is no adapter that is known", got=str(error)[:150], hint=hint) from error
    layers: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        layer, _, side = key.rpartition(".lora_")
        name = {"A.weight": "down", "B.weight": "up", "linear_layer.down.weight": "down"}.get(side)
        if not layer or name is None:
            raise DuoError(f"{source} has a weight that no adapter has", got=key, hint="a plain LoRA")
        layers.setdefault(layer, {})[name] = value
    found = {}
    for layer, sides in layers.items():
        if set(sides) != {"down", "up"}:
            lacking = "lora_B" if "down" in sides else "lora_A"
            raise DuoError(f"{source} is not whole", got=f"no {lacking} for {layer}", hint="save the adapter again")
        rank = sides["down"].shape[0]
        factor = alphas[f"{layer}.alpha"] / rank if f"{layer}.alpha" in alphas else scale
        found[layer] = (sides["down"], factor * sides["up"])
    return found


def _scale_of(metadata: Mapping[str, str]) -> float:
    """alpha / rank of diffusers' own metadata; without it alpha is the rank."""
    try:
        described = json.loads(metadata["lora_adapter_metadata"])
        found = {key.rpartition(".")[2]: value for key, value in described.items()}
        return float(found["lora_alpha"]) / float(found["r"])
    except (KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError):
        return 1.0


def _from_peft(model: Model, source: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], float]:
    """Plain PEFT's keys under the denoiser's name, and alpha / rank of adapter_config.json beside the file."""
    config = source.parent / "adapter_config.json"
    if not config.exists():
        hint = "keep adapter_config.json beside the adapter, as `save_pretrained` writes it"
        raise DuoError(f"{source} carries no alpha", got="no adapter_config.json beside it", hint=hint)
    described: Any = read_json(config)
    try:
        if described.get("use_dora") or described.get("alpha_pattern") or described.get("rank_pattern"):
            raise DuoError(f"{config} asks for more than a plain LoRA", got="DoRA or patterns", hint="a plain LoRA")
        rank = float(described["r"])
        scale = float(described["lora_alpha"]) / (rank**0.5 if described.get("use_rslora") else rank)
    except (KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise DuoError(f"{config} has no alpha and rank", got=str(error), hint="save the adapter again") from error
    return {f"{model.denoiser_name}.{key.removeprefix(_PEFT)}": value for key, value in tensors.items()}, scale


def _provenance(model: Model, source: Path, sha256: str) -> dict[str, Any]:
    return {"made_by": "others", "source": source.name, "source_sha256": sha256, "base": model.fingerprint()}


def _written(model: Model, changes: Mapping[str, Change], folder: Path, name: str, source: Path, sha256: str) -> Edit:
    write_changes(folder, changes, _provenance(model, source, sha256))
    return read_edit(folder, name)


def add_edit(
    model: Model,
    folder: Path,
    name: str,
    *,
    erased: Path | None = None,
    lora: Path | None = None,
    unet: Path | None = None,
    text_encoder: Path | None = None,
) -> Edit:
    """Write one of four sources as an edit of ours into a folder. The same source again changes nothing.

    A folder that holds another edit of that name is a DuoError.
    """
    import shutil
    import tempfile

    sources = {"--erased": erased, "--lora": lora, "--unet": unet, "--text-encoder": text_encoder}
    given = {flag: source for flag, source in sources.items() if source is not None}
    if len(given) != 1:
        hint = (
            "name one of --erased FOLDER, --lora FILE, --unet FILE, --text-encoder FILE; others as edits of their own"
        )
        raise DuoError("an edit has one source", got=", ".join(given) or "none", hint=hint)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".edit-") as place:
        written = Path(place) / name
        if erased is not None:
            edit = import_folder(model, erased, written, name)
        elif lora is not None:
            edit = import_lora(model, lora, written, name)
        else:
            part = model.denoiser_name if unet is not None else model.kind.text[0]
            edit = import_state(model, part, unet or text_encoder or Path(), written, name)
        if folder.exists():
            if edit_hash(folder) != edit.sha256:
                hint = "choose another name: --system NAME"
                raise DuoError(f"the run holds another edit {name}", got=str(folder), hint=hint)
            return read_edit(folder, name)
        shutil.move(str(written), folder)
    return read_edit(folder, name)
