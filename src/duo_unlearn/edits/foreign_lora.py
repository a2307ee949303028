"""LoRA files of other tools: diffusers' own, plain PEFT's and kohya's, read as layers of down and up matrices."""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from ..errors import DuoError
from ..families.interface import Model
from ..storage.files import read_json, read_tensors
from .lora import Layers
from .weights import own_key, own_weights

_PEFT: Final = "base_model.model."
_BEYOND: Final = ("dora_scale", "lora_magnitude_vector", "lokr_", "hada_")
"""Parts of names that only other kinds of adapters have: DoRA, LoKr, LoHa."""
_PLAIN: Final = "a plain LoRA"
BROKEN: Final = "fetch the file again, or save it again as .safetensors"
"""What to do about a file of others that is broken; nobody here can make it again."""


def foreign_layers(model: Model, source: Path) -> Layers:
    """The layers of a LoRA file, "PART.LAYER" → down and up, alpha / rank multiplied into up.

    A name that no adapter has, a layer of which one half is missing, and a kind of adapter that is no plain LoRA are
    DuoErrors. Whether the model has the layers is not looked at.
    """
    tensors, metadata = _tensors(source)
    if odd := next((key for key in tensors if any(word in key for word in _BEYOND)), None):
        raise DuoError(f"{source} is no plain LoRA", got=odd, hint=_PLAIN)
    alphas: dict[str, float] = {}
    if any(key.startswith(_PEFT) for key in tensors):
        scales = {model.denoiser_name: _peft_scale(source)}
        named = {f"{model.denoiser_name}.{key.removeprefix(_PEFT)}": value for key, value in tensors.items()}
    else:
        scales = _metadata_scales(metadata, source)
        named, alphas = _by_diffusers(model, source, tensors)
    texts = {part: own_weights(model, part) for part in model.kind.text if getattr(model.pipe, part) is not None}
    halves = _halves(source, {_own_name(texts, key): value for key, value in named.items()})
    alphas = {_layer_of(_own_name(texts, key)): value for key, value in alphas.items()}
    if len(halves) < sum(key.endswith(("lora_down.weight", "lora_A.weight", "lora.down.weight")) for key in tensors):
        raise DuoError(f"{source} is not whole", got="layers under two kinds of names", hint="save the adapter again")
    layers = {}
    for layer, (down, up) in halves.items():
        factor = alphas[layer] / down.shape[0] if layer in alphas else scales.get(layer.partition(".")[0], 1.0)
        # In half precision a small factor would round small numbers away.
        layers[layer] = (down, up if factor == 1 else factor * up.float())
    return layers


def _tensors(source: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors, metadata = read_tensors(source, hint=BROKEN)
    if not tensors:
        raise DuoError(f"{source} holds no weights", hint="a .safetensors file with weights")
    return tensors, metadata


def _by_diffusers(
    model: Model, source: Path, tensors: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and alphas under diffusers' names, whichever of the forms that it knows the file has."""
    # SDXL's blocks are counted otherwise in kohya's files; the UNet's configuration says how.
    options = {"unet_config": model.denoiser.config} if model.denoiser_name == "unet" else {}
    try:
        read: Any = model.pipe.lora_state_dict(dict(tensors), return_alphas=True, **options)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError, NotImplementedError) as error:
        hint = "a LoRA of diffusers, PEFT or kohya for this family"
        got = " ".join(str(error).split())[:150]
        raise DuoError(f"{source} is no adapter that is known", got=got, hint=hint) from error
    if not isinstance(read, tuple | list):
        return dict(read), {}
    return dict(read[0]), dict(read[1] or {})


def _own_name(texts: Mapping[str, Container[str]], key: str) -> str:
    """A tensor's or alpha's name with PEFT's ending, and with the model's own name of the layer.

    texts: text encoder → the names of its weights.
    """
    from diffusers.utils.state_dict_utils import DIFFUSERS_OLD_TO_PEFT, UNET_TO_DIFFUSERS, convert_state_dict

    part, _, rest = key.partition(".")
    mapping = DIFFUSERS_OLD_TO_PEFT if part in texts else UNET_TO_DIFFUSERS
    # It changes names alone; none of the two mappings finds anything in names that are PEFT's already.
    (renamed,) = convert_state_dict({f".{rest}": None}, mapping)
    layer, separator, side = renamed.removeprefix(".").rpartition(".lora_")
    if part not in texts or not separator:
        return f"{part}.{renamed.removeprefix('.')}"
    return f"{part}.{own_key(texts[part], part, f'{layer}.weight').removesuffix('.weight')}{separator}{side}"


def _layer_of(alpha: str) -> str:
    """The layer that an alpha is of: its name is the layer's, or that of the layer's down matrix, with an ending."""
    return alpha.removesuffix(".alpha").partition(".lora_A")[0]


def _halves(source: Path, tensors: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer → down and up, of tensors under PEFT's names."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        layer, _, side = key.rpartition(".lora_")
        name = {"A.weight": "lora_A", "B.weight": "lora_B"}.get(side)
        if not layer or name is None or value.ndim < 2:
            raise DuoError(f"{source} has a weight that no adapter has", got=key, hint=_PLAIN)
        found.setdefault(layer, {})[name] = value
    layers = {}
    for layer, sides in found.items():
        if lacking := {"lora_A", "lora_B"} - set(sides):
            got = f"no {lacking.pop()} for {layer}"
            raise DuoError(f"{source} is not whole", got=got, hint="save the adapter again")
        down, up = sides["lora_A"], sides["lora_B"]
        if down.shape[0] != up.shape[1]:
            got = f"rank {down.shape[0]} and {up.shape[1]} in {layer}"
            raise DuoError(f"{source} is not whole", got=got, hint="save the adapter again")
        layers[layer] = (down, up)
    return layers


def _metadata_scales(metadata: Mapping[str, str], source: Path) -> dict[str, float]:
    """Part → alpha / rank, as diffusers writes it beside the tensors. A part that it leaves out has alpha = rank."""
    try:
        described = json.loads(metadata.get("lora_adapter_metadata", "{}"))
        parts: dict[str, dict[str, Any]] = {}
        for key, value in described.items():
            part, _, field = key.partition(".")
            parts.setdefault(part, {})[field] = value
    except (ValueError, AttributeError, RecursionError) as error:
        raise DuoError(f"{source} has broken metadata", got=str(error)[:150], hint="save the adapter again") from error
    return {part: _scale(entry, source) for part, entry in parts.items()}


def _peft_scale(source: Path) -> float:
    """alpha / rank of adapter_config.json beside a file of plain PEFT's."""
    config = source.parent / "adapter_config.json"
    if not config.exists():
        hint = "keep adapter_config.json beside the adapter, as `save_pretrained` writes it"
        raise DuoError(f"{source} carries no alpha", got="no adapter_config.json beside it", hint=hint)
    return _scale(read_json(config), config)


def _scale(described: Any, path: Path) -> float:
    """alpha / rank of PEFT's configuration. One that asks for more than a plain LoRA is a DuoError."""
    try:
        if any(described.get(key) for key in ("use_dora", "alpha_pattern", "rank_pattern")):
            raise DuoError(f"{path} asks for more than a plain LoRA", got="DoRA or patterns", hint=_PLAIN)
        rank = float(described["r"])
        return float(described["lora_alpha"]) / (rank**0.5 if described.get("use_rslora") else rank)
    except (KeyError, ValueError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise DuoError(f"{path} has no alpha and rank", got=f"no {error}", hint="save the adapter again") from error
