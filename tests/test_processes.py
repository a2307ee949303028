"""Two real processes: an evaluation that they share, and a training whose gradients stay in step."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

import duo_unlearn as duo
from duo_unlearn.cli.workers import COMMAND
from duo_unlearn.edits.provenance import WEIGHTS
from duo_unlearn.families.load import load_model
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import read_tensors

from .command import as_process
from .drawn_pairs import draw_pairs
from .random_adapter import random_adapter
from .small_concept import small_concept

EVALUATE = {
    "evaluate.prompts": 6, "evaluate.keep_prompts": 6, "evaluate.neighbour_prompts": 2, "evaluate.inversion_prompts": 2,
    "evaluate.inversion_steps": 2, "evaluate.steps": 2, "evaluate.batch": 2,
}  # fmt: skip
TRAIN = {"train.max_train_steps": 4, "train.rank": 4, "train.learning_rate": 1e-3, "train.beta": 50}


def words(stage: str, run: Path, told: Mapping[str, object]) -> list[str]:
    return [stage, "-o", str(run), *(w for key, value in told.items() for w in ("--set", f"{key}={value}"))]


def with_pairs(folder: Path, **settings: object) -> Run:
    draw_pairs(folder / "mine", 5)
    given = {"pairs.folder": str(folder / "mine"), "concept": small_concept(folder), **settings}
    duo.make_pairs(duo.open_run(folder / "run", settings=given, quiet=True))
    return Run(folder / "run")


def with_adapter(folder: Path, **settings: object) -> Run:
    run = with_pairs(folder, **settings)
    model = load_model("mini", torch.device("cpu"))
    random_adapter(model, run.edit("duo"))
    return run


def pictures(run: Run) -> dict[str, bytes]:
    places = (run.attempts, run.originals)
    files = [path for place in places for path in sorted(place.rglob("*.png"))]
    return {str(path.relative_to(run.folder)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_an_arena_that_is_killed_goes_on_and_gives_what_one_that_is_not_gives(tmp_path: Path) -> None:
    alone = with_pairs(tmp_path / "a", **EVALUATE, **TRAIN)
    killed = Run(Path(shutil.copytree(alone.folder, tmp_path / "b" / "run")))
    asked = ["--entrant", "soft=duo,beta=5000", "--system", "duo", "--system", "soft", "--count", "2"]

    def command(run: Run) -> list[str]:
        return as_process("arena", str(run.folder), *asked, "--attack", "image-to-image", "--preset", "quick")

    assert subprocess.run(command(alone), check=False).returncode == 0
    # After the first edit, and while there is an attack.
    for sign in (killed.edit("duo"), killed.attempts / "duo/direct/image-to-image.quick"):
        process = subprocess.Popen(command(killed), stderr=subprocess.DEVNULL)
        while not sign.exists() and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
        process.kill()
        process.wait()
    assert subprocess.run(command(killed), check=False).returncode == 0
    assert pictures(killed) == pictures(alone)
    rows = [json.loads((run.folder / "arena/arena.json").read_text())["systems"] for run in (alone, killed)]
    assert [one["estimates"] for one in rows[0]] == [one["estimates"] for one in rows[1]]
    assert [one["cost"]["passes"] for one in rows[0]] == [one["cost"]["passes"] for one in rows[1]]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_share_an_evaluation_and_one_may_die(tmp_path: Path) -> None:
    alone = with_adapter(tmp_path / "a")
    both = Run(Path(shutil.copytree(alone.folder, tmp_path / "b" / "run")))
    first = subprocess.run(as_process(*words("evaluate", alone.folder, EVALUATE)), check=False)
    assert first.returncode == 0
    command = as_process(*words("evaluate", both.folder, EVALUATE))
    three = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    while not list(both.attempts.rglob("*.png")) and three[0].poll() is None:
        pass
    three[0].kill()  # whichever part it had is taken up by the others
    said = [process.communicate(timeout=500)[1] for process in three]
    assert [process.returncode for process in three[1:]] == [0, 0], said
    assert pictures(both) == pictures(alone)
    results = [json.loads(run.results.read_text())["estimates"] for run in (alone, both)]
    assert results[0] == results[1]
    kept = [entry for entry in results[1] if entry["metric"] == "prior preservation" and entry["scenario"] == "keep"]
    assert {entry["n"] for entry in kept} == {6}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_share_attacks(tmp_path: Path) -> None:
    alone = with_adapter(tmp_path / "a", **{"evaluate.steps": 6})
    both = Run(Path(shutil.copytree(alone.folder, tmp_path / "b" / "run")))
    told = ["--attack", "direct", "--attack", "image-to-image", "--count", "60"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # more threads than cores crawl

    def start(run: Run) -> subprocess.Popen[str]:
        command = as_process("attack", str(run.folder), *told)
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    first = start(alone)
    said = first.communicate(timeout=500)[1]
    assert first.returncode == 0, said
    two = [start(both), start(both)]
    both_said = [process.communicate(timeout=500)[1] for process in two]
    assert [process.returncode for process in two] == [0, 0], both_said
    images = [pictures(run) for run in (alone, both)]
    assert images[0] == images[1]
    assert len(images[0]) == 3 * 60 + 60  # image to image on two systems, direct prompts on one, and the originals
    worked = [any("judge" not in line and "percent" in line for line in text.splitlines()) for text in both_said]
    assert all(worked)  # each made a part of it
    rows = [json.loads(run.results.read_text())["estimates"] for run in (alone, both)]
    assert rows[0] == rows[1]


def train(run: Run, count: int, batch: int) -> dict[str, torch.Tensor]:
    """The adapter that `count` processes train, each with `batch` pairs a step."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(count), "--master_port", "29613"]
    script = run.folder.parent / "duo.py"
    script.write_text(COMMAND)
    command = [*(launcher if count > 1 else [sys.executable]), str(script)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    told = words("train", run.folder, {**TRAIN, "train.train_batch_size": batch})
    done = subprocess.run([*command, *told], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return read_tensors(run.edit("duo") / WEIGHTS)[0]


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(tmp_path: Path) -> None:
    runs = [with_pairs(tmp_path / name) for name in ("one", "two")]
    one, two = train(runs[0], 1, 4), train(runs[1], 2, 2)
    assert set(one) == set(two)
    assert any(value.abs().max() > 1e-4 for name, value in one.items() if "lora_B" in name)
    # By norm: AdamW gives an entry whose gradient is all rounding a step as large as any other's.
    for name, value in one.items():
        assert (two[name] - value).norm() < 0.01 * value.norm(), name
    lines = [json.loads(line) for line in runs[1].metrics("duo").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]


@pytest.mark.slow
def test_stages_of_one_process_refuse_a_launcher(tmp_path: Path) -> None:
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "1"}
    command = as_process("erase", "-o", str(tmp_path / "run"))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "not for several processes" in done.stderr
    assert not (tmp_path / "run").exists()
