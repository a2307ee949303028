"""What an eraser costs: the seconds of a training that was killed and went on are those of both."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.arena.edits import make_edit
from duo_unlearn.erasers import descent

from .small import OPTIONS, killed_at


def test_a_training_that_went_on_costs_both_parts(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "CHECKPOINT_EVERY", 1)
    folder = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("edits", "train"))
    run = duo.open_run(folder, settings={"eraser": "hirm", "erasers": {"hirm": OPTIONS["hirm"]}}, quiet=True)
    ticks = itertools.count(0, 10)  # ten seconds pass from one look at the clock to the next

    def clock() -> float:
        return float(next(ticks))

    stages = run.run.read_record().get("stages", {})
    with killed_at(monkeypatch, 2):
        make_edit(run, clock=clock)
    assert run.run.read_record().get("stages", {}) == stages
    assert make_edit(run, clock=clock) == "done"
    assert run.run.read_record()["stages"]["train"]["seconds"] == 20
    assert make_edit(run, clock=clock) == "already done"
    assert run.run.read_record()["stages"]["train"]["seconds"] == 20
    assert not run.run.checkpoint("hirm").with_name("seconds.json").exists()
