"""Several processes for one command: they end together, one that dies starts again, and a refusal is told once."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from duo_unlearn.cli.workers import (
    absence,
    count_of,
    environment_of,
    gpus_of,
    refusal_in,
    supervise,
    without_workers,
)
from duo_unlearn.errors import DuoError, Interrupted
from duo_unlearn.runs.handed import Remaining
from duo_unlearn.runs.work import parts_from

from .command import as_process


def nothing() -> None:
    """Look at nothing."""


def python(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def test_each_has_its_environment_and_its_log(tmp_path: Path) -> None:
    command = python("import os, sys; print(os.environ['N'], file=sys.stderr)")
    supervise(command, [{"N": "a"}, {"N": "b"}], tmp_path, nothing, every=0.05)
    assert [(tmp_path / f"{i}.log").read_text() for i in range(2)] == ["a\n", "b\n"]


def test_one_that_is_killed_starts_again(tmp_path: Path) -> None:
    text = f"""
import os, pathlib, signal
path = pathlib.Path({str(tmp_path / "starts")!r})
path.write_text(path.read_text() + "x" if path.exists() else "x")
if len(path.read_text()) < 3:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    supervise(python(text), [{}], tmp_path / "logs", nothing, every=0.05)
    assert (tmp_path / "starts").read_text() == "xxx"


def test_one_starts_again_while_another_is_at_work(tmp_path: Path) -> None:
    text = f"""
import os, pathlib, signal, time
starts = pathlib.Path({str(tmp_path / "starts")!r})
if os.environ["N"] == "0":  # at work until the other has started twice
    while not starts.exists() or starts.read_text() != "xx":
        time.sleep(0.01)
else:
    starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
    if starts.read_text() == "x":
        os.kill(os.getpid(), signal.SIGKILL)
"""
    supervise(python(text), [{"N": "0"}, {"N": "1"}], tmp_path / "logs", nothing, every=0.05)
    assert (tmp_path / "starts").read_text() == "xx"


def test_one_that_dies_again_and_again_is_told(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="died again and again") as raised:
        supervise(python("import os; os.kill(os.getpid(), 9)"), [{}], tmp_path, nothing, every=0.05)
    assert "after 3 starts" in str(raised.value.got)


def test_one_that_dies_again_and_again_is_left_out_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = "import os, sys; sys.exit(7 if os.environ['PLACE'] == 'sick' else 0)"
    supervise(python(code), [{"PLACE": "sick"}, {"PLACE": "sound"}], tmp_path, nothing, every=0.05)
    assert "a worker died again and again, and is left out: exit code 7 after 3 starts" in capsys.readouterr().err


def test_one_that_crashes_starts_again_though_its_exit_code_is_that_of_a_refusal(tmp_path: Path) -> None:
    text = f"""
import pathlib
path = pathlib.Path({str(tmp_path / "starts")!r})
path.write_text(path.read_text() + "x" if path.exists() else "x")
if len(path.read_text()) < 3:
    raise ValueError("a device is lost")
"""
    supervise(python(text), [{}], tmp_path / "logs", nothing, every=0.05)
    assert (tmp_path / "starts").read_text() == "xxx"


def test_one_that_crashes_again_and_again_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="died again and again") as raised:
        supervise(python("raise ValueError('a device is lost')"), [{}], tmp_path, nothing, every=0.05)
    assert raised.value.got == "exit code 1 after 3 starts: ValueError: a device is lost"
    assert (tmp_path / "0.log").read_text().count("Traceback") == 3


CRASH = ["Traceback (most recent call last):", '  File "a.py", line 1', "ValueError: a device is lost"]
REFUSAL = ["Error: the attack is unknown", "Got: p5d", "Try: p4d"]


@pytest.mark.parametrize(
    ("said", "got"),
    [
        ([], None),
        (["evaluate: 2/8"], None),
        (CRASH, None),
        ([*REFUSAL, *CRASH], None),
        (REFUSAL, "p5d"),
        ([*CRASH, *REFUSAL], "p5d"),
        (["evaluate: 2/8", *REFUSAL, "a warning at the end"], "p5d"),
    ],
)
def test_a_refusal_is_known_from_a_crash_by_what_is_said_last(said: list[str], got: str | None) -> None:
    refusal = refusal_in(said, "look")
    assert (refusal and refusal.got) == got


def test_a_refusal_without_a_hint_has_that_of_the_log() -> None:
    refusal = refusal_in(["Error: no device"], "look")
    assert refusal is not None
    assert (refusal.problem, refusal.got, refusal.hint) == ("no device", None, "look")


def test_a_command_that_was_typed_wrong_is_not_started_again(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="before its work was done"):
        supervise(as_process("evaluate", "--nonsense"), [{}], tmp_path, nothing, every=0.05)
    assert (tmp_path / "0.log").read_text().count("Usage") == 1


@pytest.mark.parametrize(
    ("device", "environment", "there", "gpus"),
    [
        ("auto", {}, 2, ["0", "1"]),
        ("auto", {}, 0, []),
        ("cuda", {"CUDA_VISIBLE_DEVICES": "2,3"}, 2, ["2", "3"]),
        ("auto", {"CUDA_VISIBLE_DEVICES": "GPU-8a21, GPU-03fe"}, 2, ["GPU-8a21", "GPU-03fe"]),
        ("auto", {"CUDA_VISIBLE_DEVICES": "3,-1,2"}, 1, ["3"]),  # what is behind a number that is none is not seen
        ("auto", {"CUDA_VISIBLE_DEVICES": ""}, 0, []),
        ("cpu", {}, 2, []),
        ("cpu", {"CUDA_VISIBLE_DEVICES": "2,3"}, 2, []),
        ("mps", {}, 0, []),
        ("cuda:1", {"CUDA_VISIBLE_DEVICES": "2,3"}, 2, ["2,3"]),
        ("cuda:1", {}, 2, ["0,1"]),
    ],
)
def test_workers_have_the_gpus_that_the_command_may_use(
    device: str, environment: dict[str, str], there: int, gpus: list[str]
) -> None:
    assert gpus_of(device, environment, lambda: there) == gpus


def test_three_workers_share_two_gpus() -> None:
    assert [environment_of(i, 3, ["2", "3"]) for i in range(3)] == [
        {"CUDA_VISIBLE_DEVICES": "2"},
        {"CUDA_VISIBLE_DEVICES": "3"},
        {"CUDA_VISIBLE_DEVICES": "2"},
    ]


def test_without_gpus_the_cores_are_divided_and_none_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    told = {"CUDA_VISIBLE_DEVICES": "-1", "OMP_NUM_THREADS": "3"}
    assert [environment_of(i, 2, []) for i in range(2)] == [told, told]
    assert environment_of(0, 9, [])["OMP_NUM_THREADS"] == "1"


def test_a_refusal_is_told_in_its_own_words_and_stops_the_others(tmp_path: Path) -> None:
    text = f"""
import os, pathlib, signal, sys, time
ready = pathlib.Path({str(tmp_path / "ready")!r})
if os.environ["N"] == "0":
    while not ready.exists():
        time.sleep(0.01)
    print("Error: the attack is unknown\\nGot: p5d\\nTry: p4d", file=sys.stderr)
    sys.exit(1)
def stop(*_):
    ready.rename(ready.with_name("stopped"))
    sys.exit()
signal.signal(signal.SIGTERM, stop)
ready.touch()
time.sleep(600)
"""
    with pytest.raises(DuoError, match="the attack is unknown") as raised:
        supervise(python(text), [{"N": "0"}, {"N": "1"}], tmp_path / "logs", nothing, every=0.05)
    assert (raised.value.got, raised.value.hint) == ("p5d", "p4d")
    assert (tmp_path / "stopped").exists()


def saves_when_told(folder: Path) -> str:
    """A process that says when it is ready, and that it saved when it was told to end."""
    return f"""
import pathlib, signal, sys, time
def stop(*_):
    pathlib.Path({str(folder / "saved")!r}).touch()
    sys.exit()
signal.signal(signal.SIGTERM, stop)
pathlib.Path({str(folder / "ready")!r}).touch()
time.sleep(600)
"""


def test_an_interruption_reaches_all(tmp_path: Path) -> None:
    def look() -> None:
        if (tmp_path / "ready").exists():
            raise KeyboardInterrupt  # as Ctrl-C would, wherever the supervisor is

    with pytest.raises(Interrupted, match="what was made is kept"):
        supervise(python(saves_when_told(tmp_path)), [{}], tmp_path / "logs", look, every=0.05)
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize(("text", "gpus", "count"), [("3", 0, 3), ("auto", 4, 4)])
def test_a_number_or_a_process_a_gpu(text: str, gpus: int, count: int) -> None:
    assert count_of(text, lambda: gpus) == count


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", ""])
def test_a_number_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DuoError, match="--workers takes a number"):
        count_of(text, lambda: 0)


def test_the_option_is_not_handed_on() -> None:
    assert without_workers(["attack", "runs/a", "--workers", "2", "--count", "3"]) == [
        "attack",
        "runs/a",
        "--count",
        "3",
    ]
    assert without_workers(["attack", "--workers=auto", "runs/a"]) == ["attack", "runs/a"]


def test_sigterm_reaches_all(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def look() -> None:
        if (tmp_path / "ready").exists():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="what was made is kept"):
        supervise(python(saves_when_told(tmp_path)), [{}], tmp_path / "logs", look, every=0.05)
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_could_not_be_made_is_told_once() -> None:
    assert absence() is None
    with parts_from(Remaining({("runs/a", "x"): "it died", ("runs/a", "y"): "it died"})):
        told = absence()
    assert told is not None
    assert (told.problem, told.got) == ("2 parts could not be made", "x: it died")
