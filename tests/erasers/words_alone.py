"""An eraser's context whose pairs are prompts alone: for losses that sample their own latents."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from duo_unlearn.concepts.store import load_concept
from duo_unlearn.erasers.interface import EraserContext
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.families.interface import Model
from duo_unlearn.records import Pair
from duo_unlearn.runs.folder import Run

UNSAFE, SAFE = "a red knight holding a sword in the snow", "a red knight holding a flower in the snow"


def context_of(
    name: str, model: Model, folder: Path, options: Mapping[str, object], *, safe: str = SAFE
) -> EraserContext:
    """What an eraser of that name works on: one pair of prompts, and these options."""
    pairs = [Pair("0", "unsafe/0.png", "safe/0.png", "0", "0", unsafe_prompt=UNSAFE, safe_prompt=safe)]
    checked = ERASERS.get(name).settings.model_validate(dict(options))
    provenance = {"concept": "sword", "base": model.fingerprint()}
    return EraserContext(model, load_concept("sword"), Run(folder / "run"), pairs, checked, 0, provenance, quiet=True)
