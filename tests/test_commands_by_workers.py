"""Whole commands by several processes: they make what one process makes, and a signal ends all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.cli.workers import (
    environment_of,
    share,
)
from duo_unlearn.edits.provenance import WEIGHTS
from duo_unlearn.runs.folder import Run

from .command import as_process
from .drawn_pairs import draw_pairs
from .small_concept import small_concept
from .test_processes import EVALUATE, TRAIN, pictures, with_adapter, with_pairs, words


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_and_its_workers_and_what_was_made_is_kept(tmp_path: Path, number: int) -> None:
    run = Run(tmp_path / "run")
    command = as_process("pairs", "--concept", "sword", "-o", str(run.folder), "--workers", "2")
    command += ["--set", "pairs.batch=1"]
    # Of its own session, so that the signal comes to the command alone, whatever a terminal would do.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    blocks = run.folder / "cache" / "candidates"
    while not (blocks.is_dir() and list(blocks.iterdir())) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 130, said
    assert "what was made is kept" in said
    with run.lock():  # nobody holds it any more
        assert list(blocks.iterdir())


@pytest.mark.slow
def test_two_workers_erase(tmp_path: Path) -> None:
    draw_pairs(tmp_path / "mine", 5)
    told = {**EVALUATE, **TRAIN, "train.max_train_steps": 2, "evaluate.inversion_prompts": 0}
    given = {"concept": small_concept(tmp_path), "pairs.folder": tmp_path / "mine", **told}
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    for run, more in ((one, []), (two, ["--workers", "2"])):
        command = as_process(*words("erase", run.folder, given), *more)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "2 workers" in done.stderr
    assert pictures(two) == pictures(one)
    assert (two.edit("duo") / WEIGHTS).read_bytes() == (one.edit("duo") / WEIGHTS).read_bytes()
    assert two.report.exists()


@pytest.mark.slow
def test_three_workers_sweep_two_members(tmp_path: Path) -> None:
    one, two = with_pairs(tmp_path / "a"), with_pairs(tmp_path / "b")
    settings = {**EVALUATE, **TRAIN, "train.max_train_steps": 1, "evaluate.inversion_prompts": 0}
    for run, more in ((one, []), (two, ["--workers", "3"])):
        duo.make_pairs(duo.open_run(run.folder, settings=settings, quiet=True))
        command = as_process("sweep", str(run.folder), "--beta", "10", "--beta", "30", *more)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (two.sweep / "beta.json").read_bytes() == (one.sweep / "beta.json").read_bytes()
    assert (two.sweep / "beta.svg").read_bytes() == (one.sweep / "beta.svg").read_bytes()
    for name in ("beta-10", "beta-30"):
        assert pictures(Run(two.sweep / name)) == pictures(Run(one.sweep / name))


@pytest.mark.slow
def test_two_workers_give_what_one_process_gives(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = with_adapter(tmp_path / "one"), with_adapter(tmp_path / "two")
    duo.evaluate(duo.open_run(one.folder, settings=EVALUATE, quiet=True))
    share("2", {two.folder: ["images"]}, words("evaluate", two.folder, EVALUATE))
    assert pictures(two) == pictures(one)
    assert two.results.read_bytes() == one.results.read_bytes()


@pytest.mark.slow
def test_two_workers_attack_as_one_process_does(tmp_path: Path) -> None:
    one, two = (with_adapter(tmp_path / name) for name in ("one", "two"))
    told = ["--attack", "image-to-image", "--count", "2"]
    threads = {**os.environ, **environment_of(0, 2, [])}  # as many as each of two has
    for run, more in ((one, []), (two, ["--workers", "2"])):
        duo.make_pairs(duo.open_run(run.folder, settings={"evaluate.batch": 1, "evaluate.steps": 2}, quiet=True))
        command = as_process("attack", str(run.folder), *told, *more)
        environment = os.environ if more else threads
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "2 workers" in done.stderr
    assert len([name for name in pictures(one) if "image-to-image" in name]) == 2 * 2  # on the original and the edit
    assert pictures(two) == pictures(one)
    assert two.results.read_bytes() == one.results.read_bytes()


@pytest.mark.slow
def test_two_workers_share_an_arena(tmp_path: Path) -> None:
    run = with_pairs(tmp_path)
    settings = {**EVALUATE, **TRAIN, "train.max_train_steps": 1, "evaluate.inversion_prompts": 0}
    told = words("train", run.folder, settings)
    assert subprocess.run(as_process(*told), check=False).returncode == 0
    command = ["arena", str(run.folder), "--system", "duo", "--system", "soft", "--entrant", "soft=duo,beta=9"]
    command += ["--attack", "edit-removal", "--count", "2", "--workers", "2"]
    done = subprocess.run(as_process(*command), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 workers" in done.stderr
    systems = json.loads((run.folder / "arena" / "arena.json").read_text())["systems"]
    assert [one["system"] for one in systems] == ["original", "duo", "soft"]
    assert {"train", "train soft"} <= set(run.read_record()["stages"])


@pytest.mark.slow
def test_two_workers_evaluate_an_edit_of_others(tmp_path: Path) -> None:
    made = with_adapter(tmp_path / "made")
    file = made.edit("duo") / WEIGHTS
    told = {**EVALUATE, "evaluate.inversion_prompts": 0, "concept": small_concept(tmp_path)}
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    for run, more in ((one, []), (two, ["--workers", "2"])):
        command = [*words("evaluate", run.folder, told), "--lora", str(file), "--system", "theirs", *more]
        done = subprocess.run(as_process(*command), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert "2 workers" in done.stderr
    assert [name for name in pictures(one) if "/theirs/" in name]
    assert pictures(two) == pictures(one)
