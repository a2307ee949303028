"""The adapter: LoRA on the denoiser; the reference model is the same denoiser with the adapter off."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ..errors import DuoError
from ..families.interface import Model
from ..records import Targets
from ..storage.files import read_json, read_tensors, write_json, write_tensors

NAME: Final = "duo"
WEIGHTS: Final = "pytorch_lora_weights.safetensors"


def attach(model: Model, *, rank: int, seed: int, targets: Targets = "self-attention") -> list[nn.Parameter]:
    """Put a fresh float32 adapter (alpha = rank, Gaussian A, zero B) on the denoiser; gives its parameters.

    A zero B makes it the identity: the model's output is unchanged until the first step. Only the new adapter's
    tensors are returned and require gradients.
    """
    from peft import LoraConfig

    layers = model.adapted_layers(targets)
    if not layers:
        raise DuoError("the denoiser has no layer that the adapter could be put on", got=targets)
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser: Any = model.denoiser
        denoiser.add_adapter(config, adapter_name=NAME)
    parameters = []
    for name, parameter in model.denoiser.named_parameters():
        mine = "lora_" in name and f".{NAME}." in name
        parameter.requires_grad_(mine)
        if mine:
            parameter.data = parameter.data.float()
            parameters.append(parameter)
    return parameters


@contextlib.contextmanager
def adapters_off(denoiser: nn.Module) -> Iterator[None]:
    """The reference: every adapter switched off inside the block, and all as it was after it. Blocks may be nested.

    PEFT's own switches set requires_grad on all active adapters, also on frozen ones.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]
    flags = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    were_on = [not layer.disable_adapters for layer in layers]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer, on in zip(layers, were_on, strict=True):
            layer.enable_adapters(on)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def adapter_tensors(denoiser: nn.Module) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names (without the adapter's name)."""
    from peft.utils import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(denoiser, adapter_name=NAME))


def load_adapter_tensors(denoiser: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `adapter_tensors` gave, into an attached adapter."""
    from peft.utils import set_peft_model_state_dict

    set_peft_model_state_dict(denoiser, dict(tensors), adapter_name=NAME)


def save_adapter(model: Model, folder: Path, provenance: Mapping[str, Any]) -> Path:
    """Write the adapter as diffusers LoRA safetensors, with its alpha and where it comes from.

    The file loads with plain `pipe.load_lora_weights(folder)`. Provenance is also in provenance.json beside it.
    """
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
    metadata = {
        "format": "pt",
        "lora_adapter_metadata": json.dumps(described, default=str, sort_keys=True),
        "duo_provenance": json.dumps(dict(provenance), sort_keys=True),
    }
    write_tensors(folder / WEIGHTS, tensors, metadata)
    write_json(folder / "provenance.json", dict(provenance))
    return folder / WEIGHTS


def read_provenance(folder: Path) -> dict[str, Any]:
    """provenance.json of an adapter folder; empty when there is none."""
    path = folder / "provenance.json"
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    return found


def load_adapter(model: Model, folder: Path, *, strength: float = 1.0) -> None:
    """Load an adapter onto a model through diffusers. strength 0 equals the base exactly, 1 is as trained.

    An adapter that was made for another base, or whose file is broken, is a DuoError.
    """
    path = folder / WEIGHTS if folder.is_dir() else folder
    if not path.exists():
        raise DuoError(f"there is no adapter {path}", hint="run `duo train` or `duo erase` first")
    read_tensors(path)
    base = read_provenance(path.parent).get("base")
    if base is not None and base != model.fingerprint():
        hint = "load the model it was trained on, or train again"
        raise DuoError(
            "the adapter was made for another base model", got=f"{base}, not {model.fingerprint()}", hint=hint
        )
    try:
        model.pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=NAME)
        set_strength(model, strength)
    except (ValueError, RuntimeError, KeyError) as error:
        raise DuoError(f"the adapter {path} does not fit the model", got=str(error)[:200]) from error


def set_strength(model: Model, strength: float) -> None:
    """How much of the adapter acts: 0 is the base model exactly, 1 the adapter as trained."""
    model.pipe.set_adapters([NAME], [strength])
