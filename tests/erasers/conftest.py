"""A run with synthesized pairs, made once for the erasers' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

import duo_unlearn as duo

from .small import SMALL


@pytest.fixture(scope="package")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with pairs that have prompts, and no edit yet."""
    run = duo.open_run(tmp_path_factory.mktemp("erasers") / "run", settings=SMALL, quiet=True)
    duo.make_pairs(run)
    return run.run.folder
