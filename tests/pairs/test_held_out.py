"""Pairs that training does not use: made beside the others, or taken from a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from duo_unlearn.errors import DuoError
from duo_unlearn.pairs.held_out import are_made, chosen_names, held_out_seed
from duo_unlearn.pairs.manifest import load_pairs
from duo_unlearn.pairs.own_pairs import import_pairs

from ..drawn_pairs import draw_pairs
from .drawn_world import World, files_of


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    draw_pairs(folder, 12)
    return folder


def test_a_share_of_names_is_rounded_down_and_needs_no_order() -> None:
    names = [f"pair {i}" for i in range(25)]
    chosen = chosen_names(names, 0.1)
    assert len(chosen) == 2
    assert chosen_names(names[::-1], 0.1) == chosen
    assert chosen <= chosen_names(names, 0.2)
    assert chosen_names(names[:9], 0.1) == set()


def test_a_users_pairs_are_divided_and_none_is_in_both(source: Path, tmp_path: Path) -> None:
    pairs, held_out = tmp_path / "pairs", tmp_path / "held-out"
    used = import_pairs(source, pairs, held_out=held_out, share=0.25, quiet=True)
    apart = load_pairs(held_out)
    assert (len(used), len(apart)) == (9, 3)
    assert not {p.unsafe_sha256 for p in used} & {p.unsafe_sha256 for p in apart}
    before = files_of(tmp_path)
    assert import_pairs(source, pairs, held_out=held_out, share=0.25, quiet=True) == used
    assert files_of(tmp_path) == before


def test_another_share_of_pairs_that_are_there_is_refused(source: Path, tmp_path: Path) -> None:
    import_pairs(source, tmp_path / "pairs", held_out=tmp_path / "held-out", share=0.25, quiet=True)
    with pytest.raises(DuoError, match="made with other settings") as caught:
        import_pairs(source, tmp_path / "pairs", held_out=tmp_path / "held-out", share=0.5, quiet=True)
    assert "held_out 0.25 there, 0.5 now" in str(caught.value.got)


def test_held_out_pairs_are_made_beside_the_others_which_stay_as_they_are(tmp_path: Path) -> None:
    world, other = World(tmp_path / "pairs"), World(tmp_path / "held-out")
    pairs = world.make()
    apart = other.make(scale=0.25, seed=held_out_seed(3), held_out=True)
    assert len(apart) == round(6 / 4) + round(4 / 4) + round(3 / 4)
    assert not {p.seed for p in pairs} & {p.seed for p in apart}
    assert not {p.unsafe_sha256 for p in pairs} & {p.unsafe_sha256 for p in apart}


def test_a_kind_of_held_out_pairs_that_cannot_be_had_is_no_fault(tmp_path: Path) -> None:
    world = World(tmp_path / "held-out", wrong=(1.0, 0.0, 0.0))  # SDEdit leaves every sword
    assert world.make(scale=0.25, held_out=True) == []
    with pytest.raises(DuoError, match="pairs are missing"):
        World(tmp_path / "pairs", wrong=(1.0, 0.0, 0.0)).make(scale=0.25)


def test_too_few_pairs_hold_none_out(tmp_path: Path) -> None:
    concept = World(tmp_path).concept
    assert are_made(concept, 1.0, 0.1)  # round(0.6) of the first kind
    assert not are_made(concept, 0.5, 0.1)
    assert not are_made(concept, 1.0, 0.0)
