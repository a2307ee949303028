"""What a run copies of another one: its pairs, held-out ones too, where they are others."""

from __future__ import annotations

import shutil
from pathlib import Path

from duo_unlearn.arena.sharing import share_pairs
from duo_unlearn.pairs.manifest import load_pairs, set_keep
from duo_unlearn.runs.folder import Run

from ..report.make_run import add_pairs


def test_held_out_pairs_that_were_dropped_are_dropped_in_the_copy(run: Run, tmp_path: Path) -> None:
    add_pairs(run, count=3)
    shutil.copytree(run.pairs, run.held_out)
    other = Run(tmp_path / "other")
    share_pairs(run, other, "duo")
    assert load_pairs(other.held_out) == load_pairs(other.pairs) == load_pairs(run.pairs)
    begun = other.checkpoint("duo")
    begun.parent.mkdir(parents=True)
    begun.write_bytes(b"begun")
    share_pairs(run, other, "duo")
    assert begun.exists()
    set_keep(run.held_out, ["0001"], False, "dark")
    share_pairs(run, other, "duo")
    assert [pair.keep for pair in load_pairs(other.held_out)] == [True, False, True]
    assert load_pairs(other.pairs) == load_pairs(run.pairs)
    assert not begun.exists()
