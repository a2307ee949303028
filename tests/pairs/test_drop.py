"""Dropping pairs of a run: by whom the run is held, and pairs whose picture is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from duo_unlearn.cli.run import drop as command
from duo_unlearn.errors import DuoError
from duo_unlearn.pairs.drop import drop
from duo_unlearn.pairs.manifest import load_pairs, read_entries, set_keep
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import write_json

from ..report.make_run import add_pairs
from .drawn_world import World


def test_a_pair_whose_picture_is_broken_can_be_dropped(run: Run) -> None:
    add_pairs(run, count=3)
    (run.pairs / "unsafe" / "0001.png").write_bytes(b"broken")
    drop(run, ["0001"], "broken")
    assert [(pair.name, pair.reason) for pair in read_entries(run.pairs).pairs if not pair.keep] == [("0001", "broken")]
    with pytest.raises(DuoError, match="SHA-256 differs"):  # a training looks at every picture all the same
        load_pairs(run.pairs)


def test_dropping_a_pair_deletes_nothing(run: Run) -> None:
    add_pairs(run, count=3)
    files = sorted(run.pairs.rglob("*"))
    set_keep(run.pairs, ["0001"], False, "the subject changed")
    assert [(p.keep, p.reason) for p in load_pairs(run.pairs)] == [
        (True, None), (False, "the subject changed"), (True, None),
    ]  # fmt: skip
    assert sorted(run.pairs.rglob("*")) == files
    set_keep(run.pairs, ["0001"], True)
    assert all(p.keep and p.reason is None for p in load_pairs(run.pairs))
    with pytest.raises(DuoError, match="0009"):
        set_keep(run.pairs, ["0009"], False, None)


def test_a_run_that_is_held_or_has_no_pairs(run: Run) -> None:
    with pytest.raises(DuoError, match="holds no pairs"):
        drop(run, ["0001"])
    add_pairs(run, count=3)
    before = (run.pairs / "manifest.json").read_bytes()
    with run.lock(), pytest.raises(DuoError, match="in use by another run"):
        drop(run, ["0001"])
    with pytest.raises(DuoError, match="no such pair"):
        drop(run, ["0001", "9999"])
    assert (run.pairs / "manifest.json").read_bytes() == before
    assert not drop(run, ["0001"])[1].keep
    assert drop(run, ["0001"], undo=True)[1].reason is None
    assert (run.pairs / "manifest.json").read_bytes() == before


def test_each_edit_of_other_pairs_is_told_with_what_makes_it_anew(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    add_pairs(run, count=3)
    saw = [[pair.unsafe_sha256, pair.safe_sha256] for pair in load_pairs(run.pairs)]
    made = {"duo": "duo", "duo-round-1": "duo", "duo-300": "duo", "esd-all": "esd-x"}
    for name, eraser in made.items():
        write_json(run.edit(name) / "provenance.json", {"eraser": eraser, "pairs": saw})
    write_json(run.edit("theirs") / "provenance.json", {"made_by": "others"})
    run.checkpoint("esd-all").parent.mkdir(parents=True)
    command(run.folder, ["0001"], None, undo=False)
    told = [line.removeprefix("the edit ") for line in capsys.readouterr().err.splitlines()[1:]]
    by = {line.partition(" ")[0]: line.partition("from these: ")[2] for line in told}
    train = f"`duo train -o {run.folder}`"
    assert by == {
        "duo": train,
        "duo-round-1": train,
        "duo-300": "the command that made it",
        "esd-all": f"delete {run.checkpoint('esd-all').parent}, then the command that made it",
    }


def test_a_pair_that_is_dropped_while_a_search_for_more_is_stopped_stays_dropped(tmp_path: Path) -> None:
    world = World(tmp_path / "pairs", wrong=(0.0, 0.0, 0.0))
    first = world.make(tries=1, seed=0)[0].name
    world.model.crash_after = len(world.model.requests) + 1
    with pytest.raises(KeyboardInterrupt):
        world.make(tries=8, seed=0)
    assert (world.folder / "partial.json").exists()
    set_keep(world.folder, [first], False, "the hand is cut off")
    world.model.crash_after = None
    pairs = world.make(tries=8, seed=0)
    assert len(pairs) == 13
    assert [(p.name, p.reason) for p in pairs if not p.keep] == [(first, "the hand is cut off")]
