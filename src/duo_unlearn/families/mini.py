"""The embedded mini model: a small Stable Diffusion of its own world, which ships in the package."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from .stable_diffusion import SD1

MINI: Final = replace(
    SD1,
    name="mini",
    title="the embedded mini model",
    needs="nothing: it ships in the package",
    hub_words=(),
    text_width=None,
    relearning_rate=1e-4,
    size=None,
    features="mini-clip",
    clip="mini-clip",
    clip_success=None,
    architecture=lambda _pipe: "duo-unlearn-mini",
)
