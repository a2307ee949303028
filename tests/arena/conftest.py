"""A run and its evaluation, made once for the arena's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

import duo_unlearn as duo

from .small_run import make_run


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with its evaluation, which no test changes."""
    run = make_run(tmp_path_factory.mktemp("evaluated"))
    duo.evaluate(run)
    return run.run.folder
