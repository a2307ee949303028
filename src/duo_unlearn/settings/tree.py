"""Settings: one tree, every field documented once. Defaults cite their source; nothing is rescaled silently."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DuoError
from ..records import Captions, Decay, Pairing, Quantize, Sides, Targets


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)


class PairSettings(_Strict):
    """How pairs are made, or where yours are."""

    folder: Path | None = Field(None, description="Your own pairs: a folder with unsafe/ and safe/, or a manifest.")
    scale: float = Field(1.0, gt=0, description="Multiplies every count of the concept file.")
    guidance: float = Field(7.5, ge=0, description="Guidance scale for both images (authors: 7.5).")
    steps: int = Field(50, ge=2, description="Sampling steps.")
    strength: float | None = Field(None, gt=0, le=1, description="SDEdit strength; None: the concept's.")
    batch: int = Field(8, ge=1, description="Images sampled at once.")
    tries: int = Field(4, ge=1, description="Attempts a pair at most, on average over its kind.")


class TrainSettings(_Strict):
    """The objective and the optimizer."""

    beta: float = Field(500.0, gt=0, description="β of the preference term; smaller forgets more (paper: 500).")
    prior_weight: float = Field(5e6, ge=0, description="λ of the prior term (authors at β 500: 5e6); 0 turns it off.")
    learning_rate: float = Field(6e-5, gt=0, description="Of AdamW (authors at β 500: 6e-5).")
    lr_scheduler: Decay = Field(
        "constant", description="constant (authors), or down to 0 at the last step: linear, cosine."
    )
    max_train_steps: int = Field(1000, ge=1, description="Optimizer steps (authors: 1000).")
    train_batch_size: int = Field(4, ge=1, description="Pairs a step on each process (authors: 4).")
    gradient_accumulation_steps: int = Field(1, ge=1, description="Batches a step.")
    rank: int = Field(32, ge=1, description="LoRA rank; alpha is the same (authors: 32).")
    adapter_targets: Targets = Field(
        "self-attention", description="Layers with an adapter: self-attention (authors; image stream) or all-attention."
    )
    adam_weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay (authors: 1e-2).")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient clipping (authors: 1.0).")
    max_timestep: int = Field(750, ge=1, le=1000, description="t is drawn from 0 to below this (authors: 750).")
    share_timestep: bool = Field(True, description="Both members of a pair get the same t (less variance).")
    captions: Captions = Field(
        "none",
        description="none: the empty prompt for every term (paper); unsafe: both members under the unsafe prompt "
        "(Diffusion-DPO's way); dual: each member under its own prompt.",
    )
    caption_dropout: float = Field(
        0.0, ge=0, le=1, description="Share of pairs that get the empty prompt all the same, when captions is not none."
    )
    sides: Sides = Field("both", description="both; safe or unsafe: the gradient of that member alone.")
    pairing: Pairing = Field("paired", description="unpaired: the members are judged apart, each against zero.")
    mixed_precision: Literal["no", "fp16", "bf16"] = Field("no", description="Of the denoiser's forward pass.")
    gradient_checkpointing: bool = Field(
        False, description="Less memory for about a third more time a step, also of attacks that go through gradients."
    )
    checkpointing_steps: int = Field(50, ge=1, description="Steps between checkpoints.")
    report_to: str | None = Field(None, description="A tracker of accelerate's, e.g. tensorboard or wandb.")


class EvaluateSettings(_Strict):
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
    reference: Path | None = Field(
        None, description="A folder of images that FID, KID and CMMD are measured from; None: the original's images."
    )


class Settings(_Strict):
    """A whole run."""

    model: str = Field(
        "mini", min_length=1, description="mini, a diffusers folder, a .safetensors checkpoint, or a hub id."
    )
    concept: str = Field("sword", min_length=1, description="A shipped concept's name, or a concept file.")
    recipe: Literal["recommended", "paper"] = Field(
        "recommended", description="recommended: the concept file's settings; paper: the authors' numbers, exactly."
    )
    output: Path = Field(Path("runs/erase"), description="The run folder.")
    checkpoint_config: str | None = Field(
        None, description="For a model in one file: a diffusers folder or hub id that has its configuration."
    )
    resolution: int | None = Field(
        None, ge=16, multiple_of=16, description="Height and width of images, pixels; None: the model's own."
    )
    quantize: Quantize = Field(
        "no", description="int8: the frozen transformer of SD3 and FLUX in 8 bits; needs the extra `quantize`."
    )
    seed: int = Field(0, ge=0, lt=1 << 32, description="Of everything random.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps.")
    pairs: PairSettings = PairSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> dict[str, str]:
    """Every key of a settings file, dotted, and what it means."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= known_keys(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field.description or ""
    return found


def nested(pairs: Mapping[str, Any]) -> dict[str, Any]:
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


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings, later ones on top."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """A YAML file that must hold a mapping."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DuoError(f"cannot read the {what} {path}", got=getattr(error, "strerror", None) or str(error)) from error
    except yaml.YAMLError as error:
        raise DuoError(f"the {what} {path} is not valid YAML", got=" ".join(str(error).split())) from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise DuoError(f"the {what} {path} must be a mapping of names to values", got=type(content).__name__)
    return content


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """["train.beta=250"] → {"train": {"beta": 250}}; values are read as YAML."""
    found: dict[str, Any] = {}
    for assignment in assignments:
        key, separator, value = assignment.partition("=")
        if not separator or not key:
            raise DuoError("--set takes KEY=VALUE", got=assignment, hint="for example --set train.beta=250")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise DuoError(f"--set {key}: the value is not valid YAML", got=value) from error
    return nested(found)


def resolve(*layers: Mapping[str, Any]) -> Settings:
    """The settings of several layers, later ones on top; every fault is in one error."""
    try:
        return Settings.model_validate(merged(*layers))
    except ValidationError as error:
        raise DuoError(
            "the settings have faults", got="; ".join(faults(error, known_keys())), hint="see `duo check --help`"
        ) from error


def faults(error: ValidationError, known: Iterable[str]) -> list[str]:
    """One phrase a fault, with the nearest known key for an unknown one."""
    phrases = []
    for entry in error.errors():
        key = ".".join(str(part) for part in entry["loc"])
        if entry["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5) or difflib.get_close_matches(
                key.rsplit(".", 1)[-1], [k.rsplit(".", 1)[-1] for k in known], n=1, cutoff=0.6
            )
            phrases.append(f"unknown key {key!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
        elif entry["type"] == "missing":
            phrases.append(f"{key}: missing")
        else:
            phrases.append(f"{key}: {entry['msg'].lower()}, got {entry['input']!r}")
    return phrases


def as_yaml(settings: Settings) -> str:
    """Settings as a YAML file that `resolve` reads back."""
    return str(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))
