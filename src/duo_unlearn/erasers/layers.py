"""Which layers of a denoiser an eraser trains, by their names."""

from __future__ import annotations

import re
from typing import Final, Literal

from torch import nn

from ..families.interface import Model

_TEXT_STREAM: Final = (
    r"\.(add_|to_add_|norm1_context|ff_context|txt_mod|txt_mlp|double_stream_modulation_txt|context_refiner"
    r"|context_embedder|text_embedder|txt_in|cap_embedder)"
)
Part = Literal["x", "u"]
"""x: what reads the text; u: all but that. The names are ESD's."""


def trained_names(model: Model, part: Part) -> list[str]:
    """The weights of a part, "PART.PARAMETER": of linear layers and convolutions, norms left out.

    A transformer has no cross-attention; there u leaves out what reads the text, or its stream, alone.
    """
    text = re.compile(r"\.attn2\." if model.denoiser_name == "unet" else _TEXT_STREAM)
    kinds = (nn.Linear, nn.Conv2d)
    layers = {name for name, layer in model.denoiser.named_modules() if isinstance(layer, kinds)}
    chosen = {name for name in layers if (text.search(f".{name}.") is not None) == (part == "x")}
    named = model.denoiser.named_parameters()
    return [f"{model.denoiser_name}.{name}" for name, _ in named if name.rpartition(".")[0] in chosen]
