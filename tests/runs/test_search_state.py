"""The state of a search on disk, where two processes look at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from duo_unlearn.runs import search_state
from duo_unlearn.runs.search_state import SearchState
from duo_unlearn.storage.files import read_tensors


def test_a_state_that_goes_while_it_is_read_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who made it has ended the search; the other begins, and is not told of a file that cannot be written."""
    state = SearchState(tmp_path / "state.safetensors", "k", every=0)
    state.offer(1, lambda: {"a": torch.zeros(1)})

    def late(path: Path) -> Any:
        state.clear()
        return read_tensors(path)

    monkeypatch.setattr(search_state, "read_tensors", late)
    assert state.restore() is None
    assert not list(tmp_path.iterdir())


def test_a_broken_state_is_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    path.write_bytes(b"no tensors")
    assert SearchState(path, "k").restore() is None
    assert [file.name for file in tmp_path.iterdir()] == ["state.safetensors.broken"]
