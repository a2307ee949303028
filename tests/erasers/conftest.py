"""A run with synthesized pairs, made once for the erasers' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

import duo_unlearn as duo

from ..small_concept import small_concept
from .small import SMALL


@pytest.fixture(scope="package")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with four pairs that have prompts, and no edit yet. Every kind of pairs has one to itself."""
    folder = tmp_path_factory.mktemp("erasers")
    few = {"concept": small_concept(folder, kinds=4), "train.train_batch_size": 2}
    few |= {"pairs.steps": 4, "evaluate.steps": 4}
    run = duo.open_run(folder / "run", settings={**SMALL, **few}, quiet=True)
    duo.make_pairs(run)
    return run.run.folder
