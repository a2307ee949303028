"""A model's folder, part by part: which files are read, and what is wrong with them.

A part is a folder with a configuration: the denoiser, the VAE, the text encoders. Functions of this file give every
fault that they see; `identify.model_faults` gathers them. torch is imported by `not_finite` alone.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import DuoError
from ..storage.files import read_json, sha256_of
from .family import Family
from .registry import every_family

if TYPE_CHECKING:
    from torch import Tensor

PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth")
AGAIN: Final = "download the model again"
_LIBRARIES: Final = ("diffusers", "transformers")
_PLAIN: Final = "save the model anew with classes of diffusers and transformers alone"


def variant_of(folder: Path) -> str | None:
    """fp16 when some part has its weights in that variant only (as a half-precision download has), else None."""
    for part in sorted({part for family in every_family() for part in family.parts}):
        names = [file.name for file in (folder / part).glob("*.safetensors")]
        if names and all(".fp16." in name or ".fp16-" in name for name in names):
            return "fp16"
    return None


def weight_files(part: Path, variant: str | None) -> list[Path]:
    """The files of a part's weights that are loaded: of a variant, or the plain ones, whole or in shards."""
    every = sorted(part.glob("*.safetensors"))
    plain = re.compile(r"(diffusion_pytorch_model|model)(-\d+-of-\d+)?\.safetensors")
    chosen = [file for file in every if (".fp16" in file.name if variant else plain.fullmatch(file.name))]
    return chosen or every


def denoiser_files(folder: Path, family: Family) -> list[Path]:
    """The files of the denoiser's weights that are loaded from a model folder."""
    return weight_files(folder / family.denoiser, variant_of(folder))


def fingerprint_of(files: Iterable[Path]) -> str:
    """The fingerprint of a base: the SHA-256 over the hashes of its denoiser's weight files, first 16 digits."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(bytes.fromhex(sha256_of(file)))
    return digest.hexdigest()[:16]


def absent_parts(family: Family, index: Mapping[str, Any]) -> list[str]:
    """The optional parts that a model_index.json leaves out: no entry, or [null, null]."""
    return [part for part in family.optional if _left_out(index.get(part))]


def _left_out(entry: Any) -> bool:
    return not entry or entry == [None, None]


def folder_faults(folder: Path, family: Family, index: Mapping[str, Any], *, weights: bool) -> list[DuoError]:
    """Every fault of a model folder. index: its model_index.json. weights: also whether the denoiser's are finite."""
    absent = absent_parts(family, index)
    parts = [part for part in family.parts if part not in absent]
    tokenizers = [name for name in family.tokenizers if name not in absent]
    faults = _missing_files(folder, parts, tokenizers)
    faults += _foreign_classes(folder, family, index, [*parts, *tokenizers, "scheduler"])
    for part in parts:
        faults += config_faults(folder / part, family.denoiser_class if part == family.denoiser else None)
        faults += (damaged := _weight_faults(folder / part))
        if weights and part == family.denoiser and not damaged:
            faults += not_finite(weight_files(folder / part, variant_of(folder)))
    return faults


def _missing_files(folder: Path, parts: Sequence[str], tokenizers: Sequence[str]) -> list[DuoError]:
    # A tokenizer is in one file or in two, or (T5's) a sentencepiece model.
    needed = {
        **dict.fromkeys(parts, ("config.json",)),
        "scheduler": ("scheduler_config.json",),
        **dict.fromkeys(tokenizers, ("tokenizer.json", "vocab.json", "spiece.model")),
    }
    return [
        DuoError(f"{folder} is not complete", got=f"no {part}/{' or '.join(names)}", hint=AGAIN)
        for part, names in needed.items()
        if not any((folder / part / name).exists() for name in names)
    ]


def _foreign_classes(
    folder: Path, family: Family, index: Mapping[str, Any], components: Iterable[str]
) -> list[DuoError]:
    """Faults of a model_index.json that names classes of neither diffusers nor transformers, or another denoiser."""
    faults = []
    for name in components:
        entry = index.get(name)
        if _left_out(entry):
            faults.append(DuoError(f"{folder} is not complete", got=f"no {name} in model_index.json", hint=AGAIN))
            continue
        library, kind = entry if isinstance(entry, list) and len(entry) == 2 else (None, entry)
        if library not in _LIBRARIES:
            got = f"{name}: {entry} in model_index.json"
            faults.append(DuoError(f"{folder} names code of its own, which is never run", got=got, hint=_PLAIN))
        elif name == family.denoiser and kind != family.denoiser_class:
            faults.append(_other_denoiser(folder, family.denoiser_class, f"{kind} in model_index.json"))
    return faults


def _other_denoiser(folder: Path, expected: str, got: str) -> DuoError:
    return DuoError(f"{folder} has a denoiser of another kind", got=got, hint=f"a model whose denoiser is {expected}")


def config_faults(part: Path, denoiser_class: str | None = None) -> list[DuoError]:
    """Faults of a part's configuration. denoiser_class: the class that it must name, where the part is the denoiser."""
    path = part / "config.json"
    if not path.exists():
        return []  # among the missing files
    try:
        config = read_json(path)
    except DuoError as error:
        return [error]
    if not isinstance(config, dict) or not config:
        got = "nothing in it" if not config else f"a {type(config).__name__}"
        return [DuoError(f"{path} is no configuration", got=got, hint=AGAIN)]
    if "auto_map" in config:
        got = f"auto_map {config['auto_map']} in {part.name}/config.json"
        return [DuoError(f"{part.parent} names code of its own, which is never run", got=got, hint=_PLAIN)]
    if denoiser_class and (kind := config.get("_class_name", denoiser_class)) != denoiser_class:
        return [_other_denoiser(part.parent, denoiser_class, f"{kind} in {part.name}/config.json")]
    return []


def _weight_faults(part: Path) -> list[DuoError]:
    from safetensors import SafetensorError, safe_open

    if not (part / "config.json").exists():
        return []  # among the missing files
    files = sorted(part.glob("*.safetensors"))
    if not files:
        pickled = [p.name for p in part.iterdir() if p.suffix in PICKLES]
        got = f"{part.name}/{pickled[0]}, a pickle that could run code" if pickled else f"no weights in {part.name}/"
        hint = "load it with diffusers where you trust it, and save_pretrained(..., safe_serialization=True)"
        return [DuoError(f"{part.parent} has no safetensors weights", got=got, hint=hint if pickled else AGAIN)]
    faults = []
    for file in files:
        try:
            # Reads the header and compares the file's size with it.
            with safe_open(file, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            faults.append(DuoError(f"{file} is damaged", got=str(error)[:150], hint=AGAIN))
    return faults


def not_finite(files: Iterable[Path], prefix: str = "") -> list[DuoError]:
    """A fault for each safetensors file that holds NaN or infinity. One tensor is in memory at a time.

    prefix: how the names of the tensors begin that are looked at; where none begins so, all are.
    """
    from safetensors import SafetensorError, safe_open

    faults = []
    for file in files:
        try:
            with safe_open(file, framework="pt") as handle:
                every = sorted(handle.keys())
                names = [name for name in every if name.startswith(prefix)] or every
                bad = next((name for name in names if not _finite(handle.get_tensor(name))), None)
        except (SafetensorError, OSError) as error:  # e.g. a type of number that torch does not have
            faults.append(DuoError(f"{file} cannot be read", got=str(error)[:150], hint=AGAIN))
            continue
        if bad is not None:
            faults.append(DuoError(f"{file} holds numbers that are not finite", got=f"NaN or ∞ in {bad}", hint=AGAIN))
    return faults


def _finite(tensor: Tensor) -> bool:
    import torch

    whole = not tensor.is_floating_point()
    return whole or bool(torch.isfinite(tensor if tensor.dtype.itemsize > 1 else tensor.float()).all())
