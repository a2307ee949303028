"""Workers by Ray: what one process makes, byte for byte, also when a worker or a node is killed; and clear words."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import duo_unlearn as duo
from duo_unlearn.cli.ray_worker import Job, Worker, threads_and_device, versions
from duo_unlearn.cli.workers import share
from duo_unlearn.errors import DuoError
from duo_unlearn.runs.attempts import read_groups
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.holders import holders

from .command import as_process
from .ray_nodes import environ, environment, kill, listeners, processes, two_nodes, wait_for
from .test_processes import EVALUATE, pictures, with_adapter, words

TIMEOUT = 600
PART = re.compile(r"\.\d{4}$")
needs_ray = pytest.mark.skipif("ray" not in versions(), reason="Ray is not installed: pip install 'duo_unlearn[ray]'")


def job(folder: Path, **other: Any) -> Job:
    mark = folder / "run" / "cache" / "workers" / "mark"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    arguments = words("evaluate", folder / "run", EVALUATE)
    fine = Job(arguments, str(folder), [str(mark)], versions(), threads_and_device()[1], str(mark.parent))
    return fine._replace(**other)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"versions": {"ray": "1.0"}}, "another version than where the command was started"),
        ({"directory": "/nowhere"}, "no folder /nowhere here"),
        ({"marks": ["/nowhere/run/cache/workers/mark"]}, "the run folder is not shared with this machine"),
        ({"device": "abacus"}, "this machine is of another kind"),
        ({"arguments": ["evaluate", "-o", "new", "--model", "/nowhere/model", "--concept", "sword"]}, "/nowhere/model"),
    ],
)
def test_a_machine_that_cannot_do_the_job_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: dict[str, Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)  # a worker changes its directory
    error = Worker().run("one", job(tmp_path, **other), hand_out=None).error
    assert error is not None
    assert said in " ".join(word or "" for word in error)


def test_where_ray_is_missing_the_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "none")
    with pytest.raises(DuoError, match="needs Ray") as raised:
        share("ray", {run.folder: ["images"]}, ["evaluate"])
    assert "duo_unlearn[ray]" in str(raised.value.hint)


def test_one_device_by_its_number_is_refused_before_ray_is_looked_for(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DuoError, match="gives each worker a device") as raised:
        share("ray", {run.folder: ["images"]}, ["evaluate"], device="cuda:1")
    assert raised.value.got == "device cuda:1"


@pytest.mark.parametrize("found", ["2.51.2", "2.9.3", "1.13.0"])
def test_a_ray_that_web_pages_could_use_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    old = types.ModuleType("ray")
    old.__dict__["__version__"] = found
    monkeypatch.setitem(sys.modules, "ray", old)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "none")
    with pytest.raises(DuoError, match=r"Ray before 2\.52") as raised:
        share("ray", {run.folder: ["images"]}, ["evaluate"])
    assert raised.value.got == found


@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "ray:x"])
def test_where_no_cluster_is_that_is_told_at_once(run: Run, address: str) -> None:
    with pytest.raises(DuoError, match=f"there is no Ray cluster at {address}"):
        share(address, {run.folder: ["images"]}, ["evaluate"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A run folder with an edit, and a copy of it that one process has evaluated."""
    folder = tmp_path_factory.mktemp("ray")
    fresh = with_adapter(folder)
    alone = Run(Path(shutil.copytree(fresh.folder, folder / "alone")))
    done = subprocess.run(command(alone), env=environment("alone"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return fresh.folder, alone


def command(run: Run, *more: str) -> list[str]:
    return as_process(*words("evaluate", run.folder, EVALUATE), *more)


def copy_of(folder: Path, place: Path) -> Run:
    return Run(Path(shutil.copytree(folder, place / "run")))


def start(run: Run, mark: str, workers: str, **more: str) -> subprocess.Popen[str]:
    told = command(run, "--workers", workers)
    return subprocess.Popen(
        told, env=environment(mark, **more), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def stopped_at_a_part(run: Run, workers: Sequence[int], driver: subprocess.Popen[str]) -> int:
    """A worker that is stopped while it holds a part, so that its death takes one away. One that waits loses none."""
    while driver.poll() is None:
        for worker in workers:
            os.kill(worker, signal.SIGSTOP)
            claims = [one.name for holder in holders(run) or [] if holder.pid == worker for one in holder.claims]
            if any(PART.search(name) for name in claims):
                return worker
            os.kill(worker, signal.SIGCONT)
        time.sleep(0.05)
    raise AssertionError("all was made before a worker was seen with a part")


def attempts(run: Run) -> dict[str, Any]:
    """Every part of a run by its path, without the seconds that it took."""
    found = {}
    for path in sorted(run.attempts.rglob("0*.json")):
        content = json.loads(path.read_text())
        content.pop("seconds")
        found[str(path.relative_to(run.folder))] = content
    return found


def assert_same(run: Run, alone: Run) -> None:
    assert attempts(run) == attempts(alone)
    assert pictures(run) == pictures(alone)
    assert run.results.read_bytes() == alone.results.read_bytes()


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_two_workers_of_which_one_is_killed_give_what_one_process_gives(runs: tuple[Path, Run], tmp_path: Path) -> None:
    run, mark = copy_of(runs[0], tmp_path), f"local{os.getpid()}"
    # What a long TMPDIR would do to the paths of sockets.
    driver = start(run, mark, "ray", TMPDIR=str(tmp_path / ("long" * 20)))
    # On a busy machine one worker may make pictures while another still imports torch.
    wait_for(
        lambda: len(processes(mark, "ray::Worker")) == os.cpu_count() and list(run.attempts.rglob("*.png")), driver
    )
    workers = processes(mark, "ray::Worker")
    variables = environ(workers[0])
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "OMP_NUM_THREADS": "1"}
    assert {name: variables.get(name) for name in wanted} == wanted
    assert len(variables["RAY_AUTH_TOKEN"]) == 64
    assert listeners(processes(mark, "gcs_server"))
    assert not listeners(processes(mark, "dashboard.py"))  # Ray starts it all the same, and it serves nothing
    kill([stopped_at_a_part(run, workers, driver)])
    said = driver.communicate(timeout=TIMEOUT)[1]
    assert driver.returncode == 0, said
    assert "is started again" in said
    assert "is made again" in said
    assert_same(run, runs[1])
    assert not list((run.folder / "cache" / "workers").glob("ray-*"))


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_a_part_that_fails_twice_is_absent_with_its_reason_and_the_rest_is_made(
    runs: tuple[Path, Run], tmp_path: Path
) -> None:
    run = copy_of(runs[0], tmp_path)
    (run.attempts / "duo" / "synonym" / "direct" / "0003.png" / "in the way").mkdir(parents=True)
    driver = start(run, f"fails{os.getpid()}", "ray")
    said = driver.communicate(timeout=TIMEOUT)[1]
    assert driver.returncode == 1, said
    part = "duo.synonym.direct.0002"
    assert f"Ray: {part} is made again: cannot write" in said
    assert f"Ray: {part} is absent: cannot write" in said
    assert "Error: 1 part could not be made" in said
    results = json.loads(run.results.read_text())
    reasons = [one["reason"] for one in results["absent"] if (one["system"], one["scenario"]) == ("duo", "synonym")]
    assert any(reason.startswith(f"{part} could not be made: cannot write") for reason in reasons)
    known = json.loads(runs[1].results.read_text())["estimates"]

    def others(estimates: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        return [one for one in estimates if (one["system"], one["scenario"]) != ("duo", "synonym")]

    assert others(results["estimates"]) == others(known)
    assert len(others(known)) == len(results["estimates"]) < len(known)  # nothing is told of fewer prompts
    shutil.rmtree(run.attempts / "duo" / "synonym" / "direct" / "0003.png")
    duo.evaluate(duo.open_run(run.folder, settings=EVALUATE, quiet=True))
    assert_same(run, runs[1])
    assert all(record.reason is None for record in read_groups(run))


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT)
def test_ctrl_c_ends_everything(runs: tuple[Path, Run], tmp_path: Path) -> None:
    run, mark = copy_of(runs[0], tmp_path), f"stopped{os.getpid()}"
    driver = start(run, mark, "ray")
    wait_for(lambda: list(run.attempts.rglob("*.png")), driver)
    driver.send_signal(signal.SIGINT)
    said = driver.communicate(timeout=TIMEOUT)[1]
    assert driver.returncode == 130, said
    assert "what was made is kept" in said
    deadline = time.monotonic() + 60
    while processes(mark):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@needs_ray
@pytest.mark.slow
@pytest.mark.timeout(2 * TIMEOUT)
def test_two_nodes_of_which_one_is_killed_give_what_one_process_gives(runs: tuple[Path, Run], tmp_path: Path) -> None:
    run, mark = copy_of(runs[0], tmp_path), f"nodes{os.getpid()}"
    with two_nodes(mark, "a" * 64) as nodes:
        address = f"127.0.0.1:{nodes.port}"
        refused = start(run, mark, address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="b" * 64)
        assert "wants another token" in refused.communicate(timeout=TIMEOUT)[1]
        assert refused.returncode == 1
        driver = start(run, mark, address, **nodes.variables)
        logs = run.folder / "cache" / "workers"
        wait_for(lambda: len(list(logs.glob("*.log"))) == 2 and list(run.attempts.rglob("*.png")), driver)
        assert len(processes(mark + "other", "ray::Worker")) == 1
        nodes.kill_other()
        said = driver.communicate(timeout=TIMEOUT)[1]
        assert driver.returncode == 0, said
        assert "a machine left the cluster" in said
        assert_same(run, runs[1])
        for path in run.attempts.rglob("0000.json"):
            path.unlink()
        client = start(run, mark, f"ray://127.0.0.1:{nodes.client}", **nodes.variables)
        said = client.communicate(timeout=TIMEOUT)[1]
        assert client.returncode == 0, said + nodes.said()
        assert_same(run, runs[1])
