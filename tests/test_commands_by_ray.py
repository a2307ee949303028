"""Whole commands by Ray make what one process makes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.edits.provenance import WEIGHTS
from duo_unlearn.runs.folder import Run

from .command import as_process
from .drawn_pairs import draw_pairs
from .ray_nodes import environment
from .small_concept import small_concept
from .test_processes import EVALUATE, TRAIN, pictures, with_pairs, words
from .test_ray import TIMEOUT, needs_ray

pytestmark = [needs_ray, pytest.mark.slow, pytest.mark.timeout(TIMEOUT)]


def by_ray_and_alone(told: list[str], one: Run, two: Run) -> None:
    """Give a command to one process for one run, and to Ray's workers for the other: the pictures are the same."""
    for run, more in ((one, []), (two, ["--workers", "ray"])):
        whole = as_process(*(word.format(run=run.folder) for word in told), *more)
        done = subprocess.run(whole, env=environment("others"), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert re.search(r"Ray: \d+ workers on", done.stderr)
    assert pictures(two) == pictures(one)


def test_an_erasure_by_ray_is_that_of_one_process(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "mine", 5)
    settings = {**EVALUATE, **TRAIN, "train.max_train_steps": 2, "evaluate.inversion_prompts": 0}
    given = {"concept": small_concept(tmp_path), "pairs.folder": tmp_path / "mine", **settings}
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    by_ray_and_alone(words("erase", Path("{run}"), given), one, two)
    assert (two.edit("duo") / WEIGHTS).read_bytes() == (one.edit("duo") / WEIGHTS).read_bytes()
    assert two.results.read_bytes() == one.results.read_bytes()
    assert two.report.exists()


def test_a_sweep_by_ray_is_that_of_one_process(tmp_path: Path) -> None:
    one, two = (with_pairs(tmp_path / name) for name in ("one", "two"))
    settings = {**EVALUATE, **TRAIN, "train.max_train_steps": 1, "evaluate.inversion_prompts": 0}
    for run in (one, two):
        duo.make_pairs(duo.open_run(run.folder, settings=settings, quiet=True))
    by_ray_and_alone(["sweep", "{run}", "--beta", "10", "--beta", "30"], one, two)
    assert (two.sweep / "beta.json").read_bytes() == (one.sweep / "beta.json").read_bytes()
    for name in ("beta-10", "beta-30"):
        mine, theirs = Run(two.sweep / name), Run(one.sweep / name)
        assert pictures(mine) == pictures(theirs)
        assert (mine.edit("duo") / WEIGHTS).read_bytes() == (theirs.edit("duo") / WEIGHTS).read_bytes()
