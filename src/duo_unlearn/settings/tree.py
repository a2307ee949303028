"""Settings: one tree, every field documented once. Defaults cite their source; nothing is rescaled silently."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator

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
from .names import Name, Names, PathName
from .stages import EvaluateSettings, PairSettings

DUO: Final = "duo"
"""The eraser whose options are `train`."""
_SEAL: Final = "# sha256 of the lines below: "


class Settings(Strict):
    """A whole run."""

    model: Name = Field("mini", description="mini, a diffusers folder, a .safetensors checkpoint, or a hub id.")
    concept: Name = Field(
        "sword", description="A shipped concept's name or a concept file; several as one, joined by +."
    )
    recipe: Literal["recommended", "paper", "robust"] = Field(
        "recommended",
        description="recommended: the concept file's settings; paper: the authors' numbers, exactly; robust: robust "
        "DUO on a floor of the text path (docs/robust.md).",
    )
    output: PathName = Field(Path("runs/erase"), description="The run folder.")
    checkpoint_config: Name | None = Field(
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
    channels_last: bool = Field(
        False,
        description="The weights of convolutions lie channels last in memory: faster; a pixel's last bit may differ.",
    )
    seed: int = Field(0, ge=0, lt=1 << 32, description="Of everything random.")
    detector: Name | None = Field(
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
    guard: Names = Field([], description="Guards of the system that is measured beside the bare edit: `duo guards`.")
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

    @property
    def own(self) -> dict[str, Any]:
        """The options of the run's eraser, in so far as they are given."""
        return own_options(self.model_dump(include={"eraser", "erasers", "train"}))

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
            raise ValueError(f"{error.reason}; {error.hint}") from error
        return known

    @field_validator("erasers")
    @classmethod
    def _check_eraser_options(cls, options: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        if given := options.get(DUO):
            raise ValueError(f"the options of {DUO} are given as train.{next(iter(given))}, …")
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


def own_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run's eraser, in so far as they are given, from nested settings."""
    given = settings["erasers"].get(settings["eraser"], {})
    return {**settings["train"], **given} if settings["eraser"] == DUO else given


def place_of(eraser: str) -> str:
    """Where the options of an eraser stand, dotted."""
    return "train" if eraser == DUO else f"erasers.{eraser}"


def option_keys() -> dict[str, str]:
    """Every option of erasers, wraps and guards, dotted, and what it means."""
    found: dict[str, str] = {}
    registries: tuple[tuple[str, Registry[Any]], ...] = (("erasers", ERASERS), ("wraps", WRAPS), ("guards", GUARDS))
    for prefix, registry in registries:
        for name in registry.names():
            if (prefix, name) != ("erasers", DUO):
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
        known = here.get(last)
        here[last] = merge(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
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


def whole_settings(path: Path) -> dict[str, Any]:
    """The settings of a run folder with the defaults of what it has none of; all defaults where there is no file."""
    return merge(Settings().model_dump(mode="json"), read_settings(path) if path.exists() else {})
