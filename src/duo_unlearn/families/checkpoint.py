"""A model as one .safetensors file, under its tensors' original names: which family it is of, by the header alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from ..errors import DuoError
from .family import Family
from .registry import every_family

DENOISER: Final = "model.diffusion_model."
"""How the names of the denoiser's tensors begin in a whole checkpoint."""
PREDICTS_V: Final = "v_pred"
"""A tensor by whose name alone a file of SDXL says that it predicts v: ComfyUI and others look for it."""
ZERO_SNR: Final = "ztsnr"
"""The same of a schedule whose last step is pure noise."""
_FIRST: Final = f"{DENOISER}input_blocks.0.0.weight"
_CHANNELS: Final = 4
"""Channels that the UNet of a model from text alone reads: those of inpainting and editing read more."""


def checkpoint_family(path: Path) -> Family:
    """The family of a checkpoint file; a file of another kind (an adapter, a part of a model) is a DuoError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as handle:
            names = set(handle.keys())
            width = _text_width(handle, names)
            channels = int(handle.get_slice(_FIRST).get_shape()[1]) if _FIRST in names else _CHANNELS
    except (SafetensorError, OSError) as error:
        raise DuoError(f"{path} is damaged", got=str(error)[:150], hint="download it again") from error
    if channels != _CHANNELS:
        got = f"a UNet that reads {channels} channels, not {_CHANNELS}"
        raise DuoError(f"{path} makes no picture from text alone", got=got, hint="its base, not one for inpainting")
    candidates = [family for family in every_family() if names.intersection(family.checkpoint_names)]
    family = candidates[0] if len(candidates) == 1 else by_text_width(candidates, width)
    if family is not None:
        return family
    adapter = any("lora" in name for name in names)
    got = "an adapter (LoRA)" if adapter else f"tensors such as {min(names, default='none')}"
    able = ", ".join(one.title for one in every_family() if one.checkpoint_names)
    hint = f"a whole checkpoint of {able}; other families are loaded from a folder in diffusers' format"
    raise DuoError(f"{path} is no model checkpoint that is supported", got=got, hint=hint)


def check_prediction(path: Path, predicted: str) -> None:
    """Fail for a file that says it predicts v where its configuration says otherwise. predicted: diffusers' word."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as handle:
        says_v = PREDICTS_V in set(handle.keys())
    if says_v and predicted != "v_prediction":
        got = f"a tensor {PREDICTS_V} in it, and prediction_type {predicted!r} in its configuration"
        hint = "--set checkpoint_config=FOLDER whose scheduler_config.json has prediction_type v_prediction"
        raise DuoError(f"{path} predicts v", got=got, hint=hint)


def by_text_width(candidates: Iterable[Family], width: int | None) -> Family | None:
    """Which of several families a denoiser is of that reads text of a width; None where the width says nothing."""
    ordered = sorted(candidates, key=lambda family: family.text_width is None)
    return next((family for family in ordered if width and family.text_width in (width, None)), None)


def _text_width(handle: Any, names: set[str]) -> int | None:
    """The width of the text that the UNet's first cross-attention reads; None: there is none."""
    found = sorted(name for name in names if name.startswith(DENOISER) and name.endswith("attn2.to_k.weight"))
    return int(handle.get_slice(found[0]).get_shape()[1]) if found else None
