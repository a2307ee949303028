"""Systems that were asked other numbers of prompts: what cannot be held side by side is absent, with its reason."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.arena.results import make_results
from duo_unlearn.edits.provenance import WEIGHTS
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import random_scene
from duo_unlearn.runs.attempts import Group
from duo_unlearn.storage.files import write_bytes

from ..report.make_run import attempt_of, write_attempts


@pytest.mark.slow
def test_what_stays_of_fewer_pictures_than_the_originals_is_told_as_missing(tmp_path: Path) -> None:
    """As after `duo evaluate --system uce --set evaluate.keep_prompts=4` of a run that has another system of 3."""
    session = duo.open_run(tmp_path / "run", concept="sword", quiet=True)
    run, rng = session.run, random.Random(0)
    write_bytes(run.edit("duo") / WEIGHTS, b"an edit")
    for system, count in (("original", 4), ("duo", 3)):
        group = Group(system, "keep", "direct", None)
        scenes = [random_scene(rng, items=("none",)) for _ in range(count)]
        attempts = [
            attempt_of(run, group.folder(run) / f"{i:04}.png", draw(scene), f"prompt {i}", i)
            for i, scene in enumerate(scenes)
        ]
        write_attempts(run, group, attempts, kind="keep", sha256=session.system(system).sha256)
    results, _ = make_results(session)
    told = {entry["reason"]: entry["system"] for entry in results.absent if entry["metric"] == "prior preservation"}
    why = "the original has 4 of these pictures, and it 3: `duo evaluate --system duo`"
    assert told == {why: "duo"}
