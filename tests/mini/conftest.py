"""A tiny tokenizer, an untrained model folder, and the weights that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from duo_unlearn.mini.fit.fit import _assemble, pipeline_of, text_tower
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.mini.model.judge_net import JUDGES
from duo_unlearn.mini.model.parts import build_clip, build_tokenizer, build_unet, build_vae


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer trained on few captions."""
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"), captions=400, vocabulary=450, seed=0)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A model folder as `duo mini fit` writes it, with fresh weights. Read it only."""
    torch.manual_seed(0)
    clip = build_clip(tokenizer)
    pipe = pipeline_of(tokenizer, text_tower(clip), build_vae(), build_unet())
    judges = {name: network() for name, network in JUDGES.items()}
    return _assemble(tmp_path_factory.mktemp("untrained") / "model", pipe, clip, judges)


@pytest.fixture(scope="session")
def shipped() -> Path:
    """The model in the package. Tests that take this need its weights."""
    return weights_folder()
