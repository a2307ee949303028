"""Edits that others made, in their own forms: an erased diffusers folder, a LoRA file, state dicts of one part.

Each is turned into an edit of ours, checked against the base model, and written whole into a folder.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ..errors import DuoError
from ..families.identify import family_of
from ..families.interface import Model
from ..families.parts import variant_of, weight_files
from ..progress import no_loading_bars
from ..records import Quantize
from ..storage.files import digest, read_tensors, sha256_of
from .files import read_edit, write_adapter, write_changes
from .foreign_lora import BROKEN, foreign_layers
from .interface import Edit
from .lora import LoraEdit, check_layers, padded
from .provenance import edit_hash
from .weights import Change, LowRank, Replacement, WeightEdit, own_key, own_weights

_BASE = "--model: the base that it was made from, of the same architecture"


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
        if getattr(model.pipe, part) is None:
            continue
        for file in weight_files(source / part, variant_of(source)):
            read_tensors(file, hint=BROKEN)  # every number is finite
            hashes[f"{part}/{file.name}"] = sha256_of(file)
        changes |= _replacements(model, part, _load_part(model, source, part), source)
    if not changes:
        hint = "name the folder of the erased model, and with --model its base"
        raise DuoError(f"{source} has the base model's weights", got="no weight differs", hint=hint)
    return _write(model, changes, folder, name, source, digest(hashes))


def _load_part(model: Model, source: Path, part: str) -> dict[str, Tensor]:
    """All weights of a part of a model's folder, under today's names: its library turns older ones into these."""
    kind: Any = type(getattr(model.pipe, part))
    try:
        with no_loading_bars():
            module, info = kind.from_pretrained(
                source, subfolder=part, variant=variant_of(source), dtype=torch.float32, use_safetensors=True,
                local_files_only=True, output_loading_info=True,
            )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        got = " ".join(str(error).split())[:200]
        raise DuoError(f"cannot load {part} of {source}", got=got, hint=_BASE) from error
    for field, what in (("missing_keys", "missing weight"), ("unexpected_keys", "unknown weight")):
        _refuse(source, what, [f"{part}.{key}" for key in sorted(info.get(field) or ())])
    tensors = dict(module.named_parameters())
    _refuse(source, "missing weight", [f"{part}.{key}" for key in own_weights(model, part) if key not in tensors])
    return tensors


def import_state(model: Model, part: str, source: Path, folder: Path, name: str) -> Edit:
    """A safetensors state dict of one part, whole or with some of its weights, as a full change of those."""
    tensors = read_tensors(source, hint=BROKEN)[0]
    if not tensors:
        raise DuoError(f"{source} holds no weights", hint="a .safetensors file with weights")
    changes = _replacements(model, part, tensors, source)
    if not changes:
        raise DuoError(f"{source} has the base model's weights", got="no weight differs", hint="check the file")
    return _write(model, changes, folder, name, source, sha256_of(source))


def import_lora(model: Model, source: Path, folder: Path, name: str) -> Edit:
    """A LoRA of diffusers, plain PEFT or kohya. Layers of a text encoder make it a low-rank change of both parts."""
    if source.is_dir():
        files = sorted(source.glob("*.safetensors"))
        if len(files) != 1:
            got = f"{len(files)} safetensors files in it"
            raise DuoError(f"{source} is not one adapter", got=got, hint="--lora FILE.safetensors")
        source = files[0]
    layers = foreign_layers(model, source)
    if not all(layer.startswith(f"{model.denoiser_name}.") for layer in layers):
        changes: dict[str, Change] = {
            f"{layer}.weight": LowRank(up.flatten(1), down.flatten(1)) for layer, (down, up) in layers.items()
        }
        return _write(model, changes, folder, name, source, sha256_of(source))
    provenance = _provenance(model, source, sha256_of(source))
    rank = max(down.shape[0] for down, _ in layers.values())
    layers = {layer: padded(*halves, rank) for layer, halves in layers.items()}
    names = [layer.partition(".")[2] for layer in layers]
    config = {"r": rank, "lora_alpha": rank, "target_modules": names, "peft_type": "LORA"}
    check_layers(model, LoraEdit(name, "", source, layers, 1.0, model.denoiser_name, config, provenance))
    tensors = {f"{layer}.lora_A.weight": down for layer, (down, _) in layers.items()}
    tensors |= {f"{layer}.lora_B.weight": up for layer, (_, up) in layers.items()}
    write_adapter(folder, tensors, model.denoiser_name, config, provenance)
    return read_edit(folder, name)


def _replacements(model: Model, part: str, tensors: Mapping[str, Tensor], source: Path) -> dict[str, Change]:
    """The weights that differ from the base's. An unknown name, and another size, is a DuoError."""
    own = own_weights(model, part)
    plain = {own_key(own, part, key): value for key, value in tensors.items()}
    # Buffers such as position ids, which older files carry, change nothing.
    _refuse(
        source, "unknown weight", [f"{part}.{k}" for k, v in plain.items() if k not in own and v.is_floating_point()]
    )
    plain = {key: value for key, value in plain.items() if key in own}
    _refuse(
        source, "weight of another size", [f"{part}.{k}" for k, value in plain.items() if value.shape != own[k].shape]
    )
    return {
        f"{part}.{key}": Replacement(value)
        for key, value in plain.items()
        if not torch.equal(value.to(own[key]), own[key])
    }


def _refuse(source: Path, what: str, names: Iterable[str]) -> None:
    """Fail where there is a name that should not be there. what: is wrong with it."""
    first, *more = [*names] or [""]
    if first:
        got = f"{what} {first}" + (f" and {len(more)} more" if more else "")
        raise DuoError(f"{source} does not fit the model", got=got, hint=_BASE)


def _provenance(model: Model, source: Path, sha256: str) -> dict[str, Any]:
    return {"made_by": "others", "source": source.name, "source_sha256": sha256, "base": model.fingerprint()}


def _write(model: Model, changes: Mapping[str, Change], folder: Path, name: str, source: Path, sha256: str) -> Edit:
    provenance = _provenance(model, source, sha256)
    if model.variant.rpartition(", ")[2] in get_args(Quantize):
        hint = "--set quantize=no"
        raise DuoError("weights that are kept in 8 or 4 bits cannot be edited", got=model.variant, hint=hint)
    WeightEdit(name, sha256, source, changes, provenance).located(model)
    write_changes(folder, changes, provenance)
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
