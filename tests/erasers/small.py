"""A small training: the mini model on a few drawn pairs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from duo_unlearn.erasers import descent
from duo_unlearn.erasers.duo.settings import TrainSettings
from duo_unlearn.erasers.latents import Cache, build_cache
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.pairs.own_pairs import import_pairs
from duo_unlearn.records import Pair
from duo_unlearn.runs.folder import Run

from ..drawn_pairs import draw_pairs

CPU = torch.device("cpu")
SMALL = {
    "pairs.scale": 0.03, "pairs.held_out": 0, "pairs.steps": 8, "evaluate.steps": 8, "evaluate.prompts": 6,
    "evaluate.keep_prompts": 3, "evaluate.neighbour_prompts": 2, "evaluate.inversion_prompts": 0,
    "train.max_train_steps": 2, "train.rank": 2,
}  # fmt: skip
"""Settings of a small run with synthesized pairs, which have prompts."""
OPTIONS: dict[str, dict[str, object]] = {
    "esd-x": {"steps": 2, "latents": "pairs"},
    "esd-u": {"steps": 2, "sampling_steps": 4},
    "hirm": {"steps": 2},
    "spm": {"steps": 2, "sampling_steps": 4},
    # refresh 0: the second step reads the first one's path, also after it was killed.
    "eraseflow": {"steps": 3, "sampling_steps": 4, "paths_at_once": 3},
    "advunlearn": {"steps": 2, "warm_up": 0, "renew_every": 2, "attack_steps": 2, "retain_batch": 2, "lr": 1e-4},
    "stereo": {"steps": 2, "rounds": 1, "search_steps": 2, "inversion_steps": 2, "sampling_steps": 4},
    "salun": {"steps": 2, "batch": 2},
    "diffusion-dpo": {"max_train_steps": 2, "rank": 2, "train_batch_size": 2},
    "dcpo": {"max_train_steps": 2, "rank": 2, "train_batch_size": 2},
    "robust-duo": {"max_train_steps": 2, "rank": 2, "train_batch_size": 2, "hold_batch": 2},
}
"""What keeps each eraser's training small; those that are not named are quick as they are."""


@contextlib.contextmanager
def killed_at(monkeypatch: pytest.MonkeyPatch, step: int) -> Iterator[None]:
    """Inside the block a training dies when it begins a step, counted from 1; after it trainings run as ever."""
    real, begun = descent._step, []

    def dying(*arguments: Any) -> dict[str, float]:
        begun.append(1)
        if len(begun) == step:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(descent, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        yield
    monkeypatch.setattr(descent, "_step", real)


def pairs_in(folder: Path, count: int = 6) -> list[Pair]:
    """Drawn pairs as a user would bring them."""
    draw_pairs(folder / "mine", count)
    return import_pairs(folder / "mine", folder / "pairs", quiet=True)


def quick(**changes: object) -> TrainSettings:
    base = {"learning_rate": 2e-3, "prior_weight": 2e4, "rank": 4, "max_train_steps": 6, "train_batch_size": 2}
    return TrainSettings.model_validate(base | {"checkpointing_steps": 2} | changes)


def prepare(run: Run) -> tuple[Model, Cache, list[Pair]]:
    pairs = pairs_in(run.folder)
    model = load_model("mini", CPU)
    return model, build_cache(model, pairs, run.pairs, run.moments), pairs
