"""A small SDXL and what an eraser works on with it: drawn pairs of the sword, with prompts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from duo_unlearn.concepts.store import load_concept
from duo_unlearn.erasers.interface import EraserContext
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.runs.folder import Run

from ..families import small_models
from .small import pairs_in

COLOURS = ("red", "blue", "green")


def small_sdxl(folder: Path) -> Model:
    return load_model(str(small_models.sdxl(folder / "model")), torch.device("cpu"))


def context_on(model: Model, folder: Path, name: str, **options: object) -> EraserContext:
    """A run in a folder that is made, with three pairs, and an eraser's options."""
    run = Run(folder)
    pairs = [
        dataclasses.replace(
            pair,
            unsafe_prompt=f"a {colour} knight holding a sword in the snow",
            safe_prompt=f"a {colour} knight with empty hands in the snow",
        )
        for pair, colour in zip(pairs_in(folder, len(COLOURS)), COLOURS, strict=True)
    ]
    checked = ERASERS.get(name).settings.model_validate(options)
    return EraserContext(model, load_concept("sword"), run, pairs, checked, 0, {"concept": "sword"}, quiet=True)
