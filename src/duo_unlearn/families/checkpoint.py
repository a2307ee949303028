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


def checkpoint_family(path: Path) -> Family:
    """The family of a checkpoint file; a file of another kind (an adapter, a part of a model) is a DuoError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as handle:
            names = set(handle.keys())
            width = _text_width(handle, names)
    except (SafetensorError, OSError) as error:
        raise DuoError(f"{path} is damaged", got=str(error)[:150], hint="download it again") from error
    candidates = [family for family in every_family() if names.intersection(family.checkpoint_names)]
    family = candidates[0] if len(candidates) == 1 else by_text_width(candidates, width)
    if family is not None:
        return family
    adapter = any("lora" in name for name in names)
    got = "an adapter (LoRA)" if adapter else f"tensors such as {min(names, default='none')}"
    able = ", ".join(one.title for one in every_family() if one.checkpoint_names)
    hint = f"a whole checkpoint of {able}; other families are loaded from a folder in diffusers' format"
    raise DuoError(f"{path} is no model checkpoint that is supported", got=got, hint=hint)


def by_text_width(candidates: Iterable[Family], width: int | None) -> Family | None:
    """Which of several families a denoiser is of that reads text of a width; None where the width says nothing."""
    ordered = sorted(candidates, key=lambda family: family.text_width is None)
    return next((family for family in ordered if width and family.text_width in (width, None)), None)


def _text_width(handle: Any, names: set[str]) -> int | None:
    """The width of the text that the UNet's first cross-attention reads; None: there is none."""
    found = sorted(name for name in names if name.startswith(DENOISER) and name.endswith("attn2.to_k.weight"))
    return int(handle.get_slice(found[0]).get_shape()[1]) if found else None
