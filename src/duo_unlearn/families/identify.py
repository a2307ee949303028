"""Which family a model is of, and every fault of it that can be seen offline, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

from ..errors import DuoError
from ..records import Prediction
from ..storage.files import read_json
from .checkpoint import DENOISER, by_text_width, checkpoint_family
from .family import Family
from .parts import PICKLES, config_faults, folder_faults, not_finite
from .registry import every_family

PREDICTIONS: Final = get_args(Prediction)
_SOURCES: Final = "mini, a diffusers folder, a .safetensors checkpoint, or a hub id (owner/name)"


def family_of(source: str) -> str:
    """The name of the family that a model is of, without loading weights. A model with a fault is a DuoError."""
    faults, family = model_faults(source)
    if faults:
        raise faults[0]
    assert family is not None
    return family


def model_faults(source: str, *, weights: bool = False) -> tuple[list[DuoError], str | None]:
    """Every fault of a model that can be seen offline, and its family where that can be told.

    weights: also whether the denoiser's weights are finite, for which all of them are read, one tensor at a time.
    """
    if source == "mini":
        return [], source
    folder = Path(source)
    try:
        folder.exists()
    except (OSError, ValueError) as error:  # no name of a file, e.g. one that is too long
        return [DuoError(f"there is no model {source[:80]}", got=str(error)[:150], hint=_SOURCES)], None
    if folder.suffix in (".safetensors", *PICKLES) and not folder.is_dir():
        return _file_faults(folder, weights=weights)
    if not folder.exists():
        if is_hub_id(source):
            return [], hub_family(source).name
        return [DuoError(f"there is no model folder {source}", hint=_SOURCES)], None
    if not (folder / "model_index.json").exists():
        hint = "point at the folder that holds model_index.json (a model in diffusers format)"
        return [DuoError(f"{folder} is not a diffusers model", got="no model_index.json in it", hint=hint)], None
    return _folder_faults(folder, weights=weights)


def _folder_faults(folder: Path, *, weights: bool) -> tuple[list[DuoError], str | None]:
    """The faults of a model in diffusers' format, which has a model_index.json."""
    try:
        described = read_json(folder / "model_index.json")
        candidates = families_of_index(str(folder), described)
    except DuoError as error:
        return [error], None
    faults = folder_faults(folder, candidates[0], described, weights=weights)
    family = candidates[0] if len(candidates) == 1 else None
    try:
        family = family or _family_by_width(folder, candidates)
    except DuoError as error:
        faults.append(error)
    if candidates[0].denoiser == "unet":
        faults += _prediction_faults(folder)
    return faults, family.name if family is not None else None


def is_hub_id(source: str) -> bool:
    """Whether a model is named by a hub id, OWNER/NAME by the hub's own rules, and no folder here is called OWNER."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return "/" in source and not Path(source).parent.exists()


def hub_family(source: str) -> Family:
    """The family of a hub id, by its words alone: nothing is fetched."""
    words = {word: family for family in every_family() for word in family.hub_words if word in source.lower()}
    return words[max(words, key=len)]


def _file_faults(path: Path, *, weights: bool) -> tuple[list[DuoError], str | None]:
    """The faults of a model in a single file."""
    if not path.exists():
        return [DuoError(f"there is no checkpoint {path}", hint="check the path")], None
    if path.suffix in PICKLES:
        hint = "convert it to .safetensors where you trust it"
        return [DuoError(f"{path} is a pickle that could run code", hint=hint)], None
    try:
        family = checkpoint_family(path)
    except DuoError as error:
        return [error], None
    return (not_finite([path], DENOISER) if weights else []), family.name


def families_of_index(source: str, index: Any) -> list[Family]:
    """The families of the pipeline class that a model_index.json names; a class that is not supported is a DuoError."""
    name = index.get("_class_name") if isinstance(index, Mapping) else None
    found = [family for family in every_family() if family.pipeline == name]
    if not found:
        hint = " or ".join(dict.fromkeys(family.pipeline for family in every_family()))
        raise DuoError(f"{source} is of an unsupported pipeline class", got=str(name), hint=hint)
    return found


def _family_by_width(folder: Path, candidates: list[Family]) -> Family | None:
    """The family among those of one pipeline class, by the width of the text that the denoiser reads.

    None where the denoiser's configuration is missing or broken, which is a fault of its own.
    """
    path = folder / candidates[0].denoiser / "config.json"
    if config_faults(path.parent):
        return None  # a fault already
    width = read_json(path).get("cross_attention_dim") if path.exists() else 0
    if not isinstance(width, int):
        titles = " or ".join(family.title for family in candidates)
        got = f"cross_attention_dim {width!r} in {path.parent.name}/config.json"
        raise DuoError(f"{folder} is of no family of its pipeline class", got=got, hint=titles)
    return by_text_width(candidates, width)


def _prediction_faults(folder: Path) -> list[DuoError]:
    """A fault where the scheduler's prediction is one that DUO has no target for."""
    path = folder / "scheduler" / "scheduler_config.json"
    if not path.exists():
        return []  # among the missing files
    try:
        config = read_json(path)
    except DuoError as error:
        return [error]
    name = config.get("prediction_type", "epsilon") if isinstance(config, dict) else None
    if name in PREDICTIONS:
        return []
    got = f"prediction_type {name!r} in scheduler/scheduler_config.json"
    return [DuoError(f"{folder} predicts what DUO has no target for", got=got, hint=" or ".join(PREDICTIONS))]
