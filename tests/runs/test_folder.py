"""The run folder: one process at a time, and a record that is whole or absent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import pytest

from duo_unlearn.errors import DuoError
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.locks.choice import VARIABLE, Form

HOLD = """
import sys
from pathlib import Path
from duo_unlearn.runs.folder import Run
with Run(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True, params=get_args(Form))
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it holds with either form of locks."""
    monkeypatch.setenv(VARIABLE, request.param)


@pytest.fixture
def holder(run: Run) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the run folder until its input ends."""
    command = [sys.executable, "-c", HOLD, str(run.folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_and_names_its_owner(run: Run, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(DuoError, match="in use by another run") as caught, run.lock():
        pytest.fail("the lock was given twice")
    assert f"process {holder.pid}" in str(caught.value)
    assert "--output" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_killed_process_leaves_the_folder_free(run: Run, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    with run.lock():
        pass


def test_a_lock_that_was_let_go_can_be_taken_again(run: Run) -> None:
    for _ in range(2):
        with run.lock():
            assert run.folder.is_dir()


def test_two_runs_do_not_disturb_each_other(tmp_path: Path) -> None:
    with Run(tmp_path / "a").lock(), Run(tmp_path / "b").lock():
        pass


def test_an_output_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DuoError, match="output folder"), Run(tmp_path / "file").lock():
        pass


def test_making_a_run_touches_nothing(run: Run) -> None:
    assert not run.folder.exists()
    assert run.read_record() == {}


def test_the_record_keeps_what_was_not_replaced(run: Run) -> None:
    run.update_record(seed=1, stages={"pairs": "done"})
    run.update_record(seed=2)
    assert Run(run.folder).read_record() == {"seed": 2, "stages": {"pairs": "done"}}


def test_a_record_is_changed_by_one_at_a_time(run: Run) -> None:
    def add(name: str) -> None:
        run.change_record(lambda known: {**known, name: len(known)})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, map(str, range(24))))
    assert sorted(run.read_record().values()) == list(range(24))


def test_a_broken_record_is_set_aside_and_made_again(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.folder.mkdir()
    run.record.write_text('{"seed": 1')
    run.update_record(seed=2)
    assert run.read_record() == {"seed": 2}
    assert (run.folder / "run.json.broken").read_text() == '{"seed": 1'
    assert "set aside and made again" in capsys.readouterr().err


def test_everything_lies_inside_the_folder(run: Run) -> None:
    paths = [value for value in vars(run).values() if isinstance(value, Path)]
    paths += [run.edit("duo"), run.checkpoint("duo"), run.metrics("duo"), run.verdicts_of("judge")]
    assert len({str(path) for path in paths}) == len(paths) > 10
    assert all(path.is_relative_to(run.folder) for path in paths)
