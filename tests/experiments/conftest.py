"""A run with its slices, made once for the experiments' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from .small_run import sliced_run


@pytest.fixture(scope="session")
def sliced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of drawn pairs with its slices, one step each, which no test changes."""
    return sliced_run(tmp_path_factory.mktemp("slices"))
