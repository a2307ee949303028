"""The command `duo look`: what it says before a page is served."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from duo_unlearn.cli.look import look
from duo_unlearn.errors import DuoError


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DuoError, match="not installed\\nGot: no starlette, no uvicorn\\nTry: pip install"):
        look(tmp_path)


def test_a_folder_that_is_no_run_and_an_address_that_others_reach(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="is no run folder"):
        look(tmp_path)
    (tmp_path / "pairs").mkdir()
    with pytest.raises(DuoError, match="other machines could reach"):
        look(tmp_path, host="0.0.0.0")
    with pytest.raises(DuoError, match="other machines cannot reach this address"):
        look(tmp_path, allow_remote=True)
