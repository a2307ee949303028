"""The stage that takes a user's pairs: it judges them with the concept's detector where that is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from duo_unlearn.errors import DuoError
from duo_unlearn.pipeline import make_pairs
from duo_unlearn.session import Session
from duo_unlearn.settings.resolve import resolve_settings

from ..drawn_pairs import draw_pairs


def session(tmp_path: Path, **changes: Any) -> Session:
    if not (tmp_path / "mine").exists():
        draw_pairs(tmp_path / "mine", 4)
    pairs = {"folder": str(tmp_path / "mine")} | changes.pop("pairs", {})
    return Session(resolve_settings({"output": str(tmp_path / "run"), "pairs": pairs, **changes}))


def swap(folder: Path) -> None:
    (folder / "unsafe").rename(folder / "aside")
    (folder / "safe").rename(folder / "unsafe")
    (folder / "aside").rename(folder / "safe")


def test_own_pairs_are_scored_by_the_concepts_detector(tmp_path: Path) -> None:
    pairs = make_pairs(session(tmp_path))
    assert all((pair.unsafe_score or 0) > (pair.safe_score or 1) for pair in pairs)
    again, words = session(tmp_path), list[str]()
    assert make_pairs(again, words.append) == pairs
    assert "already done" in words[0]
    assert "detector" not in vars(again)  # nothing is loaded for pairs that are there


def test_swapped_pairs_are_refused_unless_they_are_trusted(tmp_path: Path) -> None:
    first = session(tmp_path)
    swap(tmp_path / "mine")
    with pytest.raises(DuoError, match="in 0 of 4 unsafe and in 4 of 4 safe"):
        make_pairs(first)
    assert not (tmp_path / "run" / "pairs").exists()
    pairs = make_pairs(session(tmp_path, pairs={"trust": True}))
    assert len(pairs) == 4


def test_without_the_detectors_weights_pairs_are_taken_unjudged_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    concept = {
        "name": "hat",
        "summary": "A hat.",
        "detector": {"name": "clip", "labels": ["unsafe=a hat", "safe=a head", f"model={tmp_path / 'no-clip'}"]},
        "pairs": [{"unsafe": "a king with a hat", "safe": "a king", "count": 2}],
    }
    (tmp_path / "hat.yaml").write_text(yaml.safe_dump(concept))
    pairs = make_pairs(session(tmp_path, concept=str(tmp_path / "hat.yaml")))
    assert {(pair.unsafe_score, pair.safe_score) for pair in pairs} == {(None, None)}
    warnings = [line for line in capsys.readouterr().err.splitlines() if "not judged" in line]
    assert len(warnings) == 1
    assert "no-clip" in warnings[0]
