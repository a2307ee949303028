"""Settings: one tree, every field documented once. Defaults cite their source; nothing is rescaled silently."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError, field_validator

from ..erasers.duo.settings import TrainSettings
from ..erasers.registry import ERASERS
from ..erasers.wraps import WRAPS, edit_name
from ..errors import DuoError
from ..guards.registry import GUARDS
from ..guards.stacking import check_stack
from ..records import Quantize
from ..registry import Registry
from ..storage.files import read_bytes, write_text
from ..storage.forms import Strict, faults, parse_yaml, read_yaml

LONGEST_NAME: Final = 255
"""How many bytes a file's name may have on common file systems."""
LONGEST_PATH: Final = 3900
"""How many bytes a run folder's path may have, so that the files in it stay within the 4096 of Linux."""
_SEAL: Final = "# sha256 of the lines below: "
_P = TypeVar("_P", str, Path)


def _check_name(value: _P) -> _P:
    text = str(value)
    if "\0" in text:
        raise ValueError("a name cannot have a NUL character")
    if len(text.encode(errors="surrogateescape")) > LONGEST_PATH:
        raise ValueError(f"a path can have {LONGEST_PATH} bytes at most")
    if any(len(part.encode(errors="surrogateescape")) > LONGEST_NAME for part in Path(text).parts):
        raise ValueError(f"a name can have {LONGEST_NAME} bytes at most")
    return value


def _distinct(names: list[str]) -> list[str]:
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{repeated[0]} is named twice")
    return names


_Path = Annotated[Path, AfterValidator(_check_name)]
_Name = Annotated[str, Field(min_length=1), AfterValidator(_check_name)]
_Names = Annotated[list[_Name], AfterValidator(_distinct)]


class PairSettings(Strict):
    """How pairs are made, or where yours are."""

    folder: _Path | None = Field(None, description="Your own pairs: a folder with unsafe/ and safe/, or a manifest.")
    scale: float = Field(1.0, gt=0, description="Multiplies every count of the concept file.")
    guidance: float = Field(7.5, ge=0, description="Guidance scale for both images (authors: 7.5).")
    steps: int = Field(50, ge=2, description="Sampling steps.")
    strength: float | None = Field(None, gt=0, le=1, description="SDEdit strength; None: the concept's.")
    batch: int = Field(8, ge=1, description="Images sampled at once.")
    tries: int = Field(4, ge=1, description="Attempts a pair at most, on average over its kind.")
    trust: bool = Field(False, description="Take your own pairs also when their sides look swapped.")
    held_out: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="Pairs that a training is measured on, as a share: made beside the others, or taken from yours.",
    )


class EvaluateSettings(Strict):
    """What is sampled and judged."""

    prompts: int = Field(300, ge=1, description="Attempts of each prompt set that asks for the concept.")
    keep_prompts: int = Field(300, ge=1, description="Prompts that must go on working.")
    neighbour_prompts: int = Field(150, ge=1, description="Prompts of each neighbour.")
    inversion_prompts: int = Field(100, ge=0, description="Prompts under the inverted token; 0 skips the inversion.")
    inversion_steps: int = Field(300, ge=1, description="Steps of the quick textual inversion.")
    inversion_batch: int = Field(8, ge=1, description="Images a step of the textual inversion.")
    guidance: float = Field(7.5, ge=0, description="Guidance scale.")
    steps: int = Field(25, ge=2, description="Sampling steps.")
    batch: int = Field(8, ge=1, description="Images sampled at once.")
    fuse_adapters: bool = Field(
        False, description="Adapters are put into the weights where nothing but sampling is done."
    )
    judges: _Names | None = Field(
        None,
        min_length=1,
        description="Which of the concept's detectors score, by name; the first heads every table. None: all of them.",
    )
    reference: _Path | None = Field(
        None, description="A folder of images that FID, KID and CMMD are measured from; None: the original's images."
    )


class Settings(Strict):
    """A whole run."""

    model: _Name = Field("mini", description="mini, a diffusers folder, a .safetensors checkpoint, or a hub id.")
    concept: _Name = Field(
        "sword", description="A shipped concept's name or a concept file; several as one, joined by +."
    )
    recipe: Literal["recommended", "paper", "robust"] = Field(
        "recommended",
        description="recommended: the concept file's settings; paper: the authors' numbers, exactly; robust: robust "
        "DUO on a floor of the text path (docs/robust.md).",
    )
    output: _Path = Field(Path("runs/erase"), description="The run folder.")
    checkpoint_config: _Name | None = Field(
        None, description="For a model in one file: a diffusers folder or hub id that has its configuration."
    )
    resolution: int | None = Field(
        None, ge=16, multiple_of=16, description="Height and width of images, pixels; None: the model's own."
    )
    quantize: Quantize = Field(
        "no",
        description="The frozen transformer of SD3 and FLUX: int8, in 8 bits (extra `quantize`); nf4, in 4 bits, on a "
        "GPU (extra `nf4`).",
    )
    seed: int = Field(0, ge=0, lt=1 << 32, description="Of everything random.")
    detector: _Name | None = Field(
        None, description="Which of the concept's detectors the run asks: gates of pairs, searches; None: the first."
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    eraser: str = Field("duo", description="What makes the edit: one of `duo erasers`.")
    wrap: str | None = Field(
        None, description="A wrap of the eraser's training, one of `duo wraps`; null: none, the eraser as it is."
    )
    floor: str | None = Field(
        None,
        description="An eraser whose change of weights lies below the eraser's own edit, e.g. uce; null: none. The two "
        "act and travel together.",
    )
    guard: _Names = Field([], description="Guards of the system that is measured beside the bare edit: `duo guards`.")
    erasers: dict[str, dict[str, Any]] = Field({}, description="Options of erasers other than duo, by name.")
    wraps: dict[str, dict[str, Any]] = Field({}, description="Options of wraps, by name.")
    guards: dict[str, dict[str, Any]] = Field({}, description="Options of guards, by name.")
    pairs: PairSettings = PairSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()

    @property
    def edit(self) -> str:
        """The name of the edit that the run makes."""
        return edit_name(self.eraser, self.wrap)

    @field_validator("eraser")
    @classmethod
    def _check_eraser(cls, name: str) -> str:
        return _registered(ERASERS, name)

    @field_validator("floor")
    @classmethod
    def _check_floor(cls, name: str | None) -> str | None:
        return None if name is None else _registered(ERASERS, name)

    @field_validator("wrap")
    @classmethod
    def _check_wrap(cls, name: str | None) -> str | None:
        return None if name is None else _registered(WRAPS, name)

    @field_validator("wraps")
    @classmethod
    def _check_wrap_options(cls, options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return _checked_options(WRAPS, options)

    @field_validator("guard")
    @classmethod
    def _check_guard(cls, names: list[str]) -> list[str]:
        known = [_registered(GUARDS, name) for name in names]
        try:
            check_stack(known)
        except DuoError as error:
            raise ValueError(f"{error.problem}: {error.got}") from error
        return known

    @field_validator("erasers")
    @classmethod
    def _check_eraser_options(cls, options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return _checked_options(ERASERS, options)

    @field_validator("guards")
    @classmethod
    def _check_guard_options(cls, options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return _checked_options(GUARDS, options)


def _registered(registry: Registry[Any], name: str) -> str:
    try:
        registry.check(name)
    except DuoError as error:
        raise ValueError(f"{error.problem}; {error.hint}") from error
    return name


def _checked_options(registry: Registry[Any], options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Options by the classes of those that they are for. Only what was given is kept: defaults may change."""
    for name, given in options.items():
        kind = registry.get(_registered(registry, name)).settings
        try:
            kind.model_validate(given)
        except ValidationError as error:
            raise ValueError("; ".join(faults(error, kind.model_fields))) from error
    return options


def option_keys() -> dict[str, str]:
    """Every option of erasers, wraps and guards, dotted, and what it means."""
    found: dict[str, str] = {}
    registries: tuple[tuple[str, Registry[Any]], ...] = (("erasers", ERASERS), ("wraps", WRAPS), ("guards", GUARDS))
    for prefix, registry in registries:
        for name in registry.names():
            if (prefix, name) != ("erasers", "duo"):
                found |= setting_keys(registry.get(name).settings, f"{prefix}.{name}.")
    return found


def setting_keys(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, str]:
    """Every key of a settings file, dotted, and what it means."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= setting_keys(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.description or ""
    return found


def nest(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": c} → {"a": {"b": c}}."""
    tree: dict[str, Any] = {}
    for key, value in pairs.items():
        *path, last = key.split(".")
        here = tree
        for part in path:
            here = here.setdefault(part, {})
            if not isinstance(here, dict):
                raise DuoError(f"{key} is set, and so is {part} as a whole", got=str(here), hint=f"set {key} alone")
        here[last] = value
    return tree


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, later ones on top."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            result[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """["train.beta=250"] → {"train": {"beta": 250}}; values are read as YAML."""
    found: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or not key:
            raise DuoError("--set takes KEY=VALUE", got=assignment, hint="for example --set train.beta=250")
        found[key.strip()] = parse_yaml(value, f"--set {key}: the value")
    return nest(found)


def resolve(*layers: Mapping[str, Any]) -> Settings:
    """The settings of several layers, later ones on top; every fault is in one error."""
    try:
        return Settings.model_validate(merge(*layers))
    except ValidationError as error:
        raise DuoError(
            "the settings have faults", got="; ".join(faults(error, setting_keys())), hint="see `duo check --help`"
        ) from error


def as_yaml(settings: Settings) -> str:
    """Settings as a YAML file that `resolve` reads back."""
    return str(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


def write_settings(path: Path, settings: Settings) -> None:
    """Write a run's settings.yaml, atomically. Its first line is a checksum of the others, for `read_settings`."""
    text = as_yaml(settings)
    write_text(path, f"{_SEAL}{hashlib.sha256(text.encode()).hexdigest()}\n{text}")


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a run folder, as nested mappings. A file without a checksum, as a person writes one, is read too.

    DuoError: the file is empty, half, or was changed since it was written.
    """
    hint = "restore the file; or delete it and give the settings again; or delete its first line if you changed it"
    content = read_bytes(path, "run's settings")
    first, _, rest = content.partition(b"\n")
    seal = _SEAL.encode()
    is_sealed = first.startswith(seal) or (seal.startswith(first) and not rest)
    if is_sealed and first != seal + hashlib.sha256(rest).hexdigest().encode():
        raise DuoError(f"the run's settings {path} are not as they were written", got="another checksum", hint=hint)
    return read_yaml(path, "run's settings", hint)
