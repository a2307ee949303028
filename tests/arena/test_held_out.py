"""Which runs hold pairs out, and what their trainings are watched by."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import duo_unlearn as duo
from duo_unlearn.arena.held_out import held_out_share, watch_of
from duo_unlearn.arena.plans import evaluated_texts
from duo_unlearn.pairs.manifest import load_pairs
from duo_unlearn.session import Session
from duo_unlearn.storage.files import write_json

from ..drawn_pairs import draw_pairs


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    draw_pairs(tmp_path / "mine", 8)
    return tmp_path / "mine"


def opened(folder: Path, mine: Path, **more: Any) -> Session:
    given = {"concept": "sword", "pairs.folder": str(mine), "pairs.held_out": 0.25}
    return duo.open_run(folder, settings=given | {k.replace("__", "."): v for k, v in more.items()}, quiet=True)


def test_a_run_of_duo_holds_out_and_says_how_many_train(mine: Path, tmp_path: Path) -> None:
    said: list[str] = []
    run = opened(tmp_path / "run", mine)
    pairs = duo.make_pairs(run, said.append)
    assert len(pairs) == 6
    assert "6 of 6 kept, 2 held out" in said[0]
    watch = watch_of(run, evaluated_texts(run))
    assert watch is not None
    assert sorted(p.name for p in watch.pairs) == sorted(p.name for p in load_pairs(run.run.held_out))
    assert len(watch.pairs) == 2


def test_previews_ask_nothing_that_an_evaluation_asks(mine: Path, tmp_path: Path) -> None:
    run = opened(tmp_path / "run", mine)
    watch = watch_of(run, evaluated_texts(run))
    assert watch is not None
    asked = evaluated_texts(run)
    words = [str(request.words) for request in watch.requests]
    assert len(words) == 4
    assert not set(words) & asked
    assert "sword" in words[0]
    assert "sword" not in words[1]
    assert watch.requests[0].seed == watch.requests[1].seed


@pytest.mark.parametrize(
    "changes", [{"eraser": "uce"}, {"eraser": "esd-x"}, {"wrap": "meta-unlearning"}, {"pairs__held_out": 0}]
)
def test_where_no_training_is_measured_on_them_all_pairs_are_used(
    mine: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    run = opened(tmp_path / "run", mine, **changes)
    assert len(duo.make_pairs(run)) == 8
    assert not run.run.held_out.exists()
    if "pairs__held_out" not in changes:
        assert watch_of(run, evaluated_texts(run)) is None


def test_another_eraser_in_the_same_folder_uses_the_pairs_that_are_there(mine: Path, tmp_path: Path) -> None:
    pairs = duo.make_pairs(opened(tmp_path / "run", mine))
    assert duo.make_pairs(opened(tmp_path / "run", mine, eraser="uce")) == pairs
    assert held_out_share(opened(tmp_path / "run", mine)) == 0.25


def test_a_run_of_before_keeps_its_pairs(mine: Path, tmp_path: Path) -> None:
    run = opened(tmp_path / "run", mine, pairs__held_out=0)
    before = duo.make_pairs(run)
    again = opened(tmp_path / "run", mine)
    assert held_out_share(again) == 0
    assert duo.make_pairs(again) == before


def test_pairs_that_would_be_made_are_not_once_the_edit_is_there(tmp_path: Path) -> None:
    run = duo.open_run(tmp_path / "run", concept="sword", quiet=True)
    assert held_out_share(run) == 0.1
    write_json(run.run.edit("duo") / "provenance.json", {})
    assert held_out_share(run) == 0
    shutil.rmtree(run.run.edit("duo"))
    assert held_out_share(run) == 0.1
