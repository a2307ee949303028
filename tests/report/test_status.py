"""How a run stands: half-made, held by others, finished, and no run at all."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from duo_unlearn.cli.status import _process
from duo_unlearn.errors import DuoError
from duo_unlearn.pairs.manifest import MANIFEST, PARTIAL, KindTries, save_manifest
from duo_unlearn.records import Attempt
from duo_unlearn.report.status import Status, Work, read_status
from duo_unlearn.runs.attempts import Group
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.holders import holders, watch_others
from duo_unlearn.runs.locks.choice import VARIABLE, Form
from duo_unlearn.runs.locks.owner_locks import OwnerLocks
from duo_unlearn.runs.locks.watch import SIGN, Watch
from duo_unlearn.settings.tree import resolve, write_settings
from duo_unlearn.storage.files import write_json
from duo_unlearn.system import EditFile, System

from ..runs.other_machines import Clock, heart_on
from ..small_concept import ASKING, NEAR, small_concept
from .make_run import add_curves, write_attempts, write_judgements

HOLD = """
import sys
from pathlib import Path
from duo_unlearn.runs.folder import Run
run, alone = Run(Path(sys.argv[1])), sys.argv[2] == "alone"
with run.lock(shared=not alone), run.claim(sys.argv[3]):
    print("held", flush=True)
    sys.stdin.read()
"""
LIGHT = """
import sys
from duo_unlearn.cli.main import app
try:
    app(["status", sys.argv[1], "--json"])
except SystemExit as stop:
    assert stop.code == 0
assert not {"torch", "diffusers", "transformers"} & set(sys.modules)
"""
SHA = "e" * 64


@pytest.fixture
def set_up(run: Run, tmp_path: Path) -> Run:
    """A run that has its settings: two steps a prompt set, and nothing made."""
    counts = {"prompts": 4, "keep_prompts": 6, "neighbour_prompts": 2, "inversion_prompts": 0}
    given = {"concept": small_concept(tmp_path), "output": str(run.folder), "evaluate": counts}
    write_settings(run.settings, resolve(given, {"train": {"max_train_steps": 500, "train_batch_size": 4}}))
    return run


@pytest.fixture(params=get_args(Form))
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds with either form of locks."""
    monkeypatch.setenv(VARIABLE, request.param)


def hold(run: Run, how: str, claim: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(run.folder), how, claim]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


@pytest.fixture
def joined(set_up: Run) -> Iterator[subprocess.Popen[str]]:
    """A process that shares the run and works on an attack."""
    with hold(set_up, "shared", "duo.direct.p4d.quick.0000") as process:
        yield process
        process.kill()


def stage(status: Status, name: str) -> Work:
    return next(work for work in status.stages if work.name == name)


def make_edit(run: Run) -> str:
    """The folder of an edit; gives the hash of its system."""
    write_json(run.edit("duo") / "provenance.json", {"sha256": SHA})
    return System((EditFile("duo", run.edit("duo"), SHA),)).sha256


def ask(run: Run, group: Group, size: int, *, there: int | None = None, sha256: str | None = None, **more: Any) -> None:
    """A group of which some attempts are there; a second part is not."""
    attempts = [
        Attempt("p", {}, i, "p", {}, f"{group.slug}{i}.png", f"{group.system}/{group.scenario}/{group.slug}/{i}")
        for i in range(size)
    ]
    sha256 = System().sha256 if sha256 is None else sha256
    write_attempts(run, group, attempts[:there], seconds=10.0, sha256=sha256, **more)
    if there is not None:
        path = group.folder(run) / "group.json"
        content = json.loads(path.read_text()) | {"size": size}
        content["parts"]["0001"] = "key"
        write_json(path, content)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    for folder, got in ((tmp_path, "no settings"), (tmp_path / "gone", "no such folder")):
        with pytest.raises(DuoError, match="is no run folder") as caught:
            read_status(Run(folder))
        assert got in str(caught.value)
        assert len(str(caught.value).splitlines()) == 3
    assert not (tmp_path / "gone").exists()


def test_a_command_is_told_as_a_shell_reads_it(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match=r"duo erase -o '.*/my runs'"):
        read_status(Run(tmp_path / "my runs"))


def test_a_run_that_has_its_settings_alone_lacks_everything(set_up: Run) -> None:
    status = read_status(set_up)
    assert {work.state for work in status.stages} == {"not begun"}
    asked = 2 * (4 * len(ASKING) + 6 + 2 * len(NEAR))  # two systems
    assert (stage(status, "evaluate").done, stage(status, "evaluate").of) == (0, asked)
    assert (stage(status, "train").done, stage(status, "train").of) == (0, 500)
    assert status.processes == []
    assert status.seconds_left is None
    assert status.next == f"duo erase -o {set_up.folder}"


def test_pairs_that_are_being_made_are_counted_before_there_are_settings(run: Run) -> None:
    tries = [KindTries("a", "b", wanted=8, kept=2, tries=9), KindTries("c", "d", wanted=4)]
    save_manifest(run.pairs, concept="sword", settings={}, pairs=[], tries=tries, name=PARTIAL)
    pairs = stage(read_status(run), "pairs")
    assert (pairs.state, pairs.done, pairs.of) == ("begun", 0, 12)


def test_a_training_that_was_killed_tells_its_step_and_the_time_left(set_up: Run) -> None:
    add_curves(set_up, steps=450)  # half a line at its end
    train = stage(read_status(set_up), "train")
    assert (train.state, train.done, train.of) == ("begun", 450, 500)
    assert train.seconds_left == pytest.approx(50 * 4 / 21.0)


def test_images_of_each_system_are_counted_and_the_time_left_follows_from_theirs(set_up: Run) -> None:
    sha256 = make_edit(set_up)
    ask(set_up, Group("original", "direct", "direct", None), 4)
    ask(set_up, Group("duo", "direct", "direct", None), 4, there=1, sha256=sha256)
    evaluate = stage(read_status(set_up), "evaluate")
    assert (evaluate.state, evaluate.done) == ("begun", 5)
    assert evaluate.seconds_left == pytest.approx((44 - 5) * 20 / 5)
    assert stage(read_status(set_up), "train").state == "done"


def test_attempts_of_another_edit_do_not_count(set_up: Run) -> None:
    make_edit(set_up)
    ask(set_up, Group("duo", "direct", "direct", None), 4, sha256="old")
    status = read_status(set_up)
    assert stage(status, "evaluate").done == 0
    (stale,) = status.attacks
    assert "of another edit" in stale.note


def test_images_that_were_sampled_otherwise_do_not_count(set_up: Run) -> None:
    ask(set_up, Group("original", "direct", "direct", None), 4)
    (path,) = set_up.attempts.rglob("group.json")
    write_json(path, json.loads(path.read_text()) | {"sampling": {"steps": 20, "guidance": 7.5}})
    assert stage(status := read_status(set_up), "evaluate").done == 0
    assert "its images have steps 20 where the settings have 25: " in status.attacks[0].note


def test_attacks_are_told_by_system_with_their_reason_where_they_cannot_run(set_up: Run) -> None:
    sha256 = make_edit(set_up)
    ask(set_up, Group("duo", "direct", "p4d", "quick"), 8, there=2, sha256=sha256)
    ask(set_up, Group("original", "direct", "p4d", "quick"), 8)
    ask(set_up, Group("duo", "direct", "tina", "quick"), 8, sha256=sha256, reason="no such family")
    p4d, tina, original = read_status(set_up).attacks
    assert (p4d.name, p4d.state, p4d.done, p4d.of) == ("p4d on duo: direct, quick", "begun", 2, 8)
    assert p4d.seconds_left == pytest.approx(6 * 5)
    assert (tina.state, tina.note) == ("done", "no such family")
    assert original.state == "done"


def test_a_broken_part_counts_as_absent_and_nothing_is_changed(set_up: Run) -> None:
    group = Group("original", "direct", "direct", None)
    ask(set_up, group, 4)
    (group.folder(set_up) / "0000.json").write_text("{half")
    set_up.record.write_text("[]")
    set_up.pairs.mkdir()
    (set_up.pairs / MANIFEST).write_text('{"pairs": [')
    assert stage(read_status(set_up), "pairs").state == "not begun"
    before = {path: path.read_bytes() for path in set_up.folder.rglob("*") if path.is_file()}
    assert stage(read_status(set_up), "evaluate").done == 0
    assert {path: path.read_bytes() for path in set_up.folder.rglob("*") if path.is_file()} == before


def test_pictures_are_judged_and_a_report_may_be_older_than_the_results(set_up: Run) -> None:
    ask(set_up, Group("original", "direct", "direct", None), 4)
    assert stage(read_status(set_up), "judge").state == "not begun"
    write_judgements(set_up, {})
    assert (stage(read_status(set_up), "judge").done, stage(read_status(set_up), "judge").of) == (0, 4)
    set_up.report.write_text("page")
    assert stage(read_status(set_up), "report").state == "done"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are told on Linux")
@pytest.mark.usefixtures("form")
def test_a_run_that_another_process_has_alone_is_told_and_not_disturbed(set_up: Run) -> None:
    with hold(set_up, "alone", "record") as process:
        status = read_status(set_up)
        assert status.processes is not None
        (holder,) = status.processes
        process.kill()
    assert (holder.pid, holder.alone) == (process.pid, True)
    assert "-c" in holder.command
    assert abs(holder.since - time.time()) < 60
    assert (holder.host, holder.lives) == (None, True)
    assert stage(status, "pairs").state == "running"
    assert status.next is None
    assert [one.pid for one in holders(set_up) or [] if one.lives is not False] == []


@pytest.mark.skipif(sys.platform != "linux", reason="processes are told on Linux")
@pytest.mark.usefixtures("form")
def test_what_a_process_works_on_is_told_by_its_claims(set_up: Run, joined: subprocess.Popen[str]) -> None:
    sha256 = make_edit(set_up)
    ask(set_up, Group("duo", "direct", "p4d", "quick"), 8, there=0, sha256=sha256)
    status = read_status(set_up)
    assert status.processes is not None
    (holder,) = status.processes
    assert (holder.pid, holder.alone) == (joined.pid, False)
    assert [claim.name for claim in holder.claims] == ["duo.direct.p4d.quick.0000"]
    assert abs(holder.claims[0].since - time.time()) < 60
    (attack,) = status.attacks
    assert attack.state == "running"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are told on Linux")
@pytest.mark.parametrize(("claim", "name"), [("pairs.0123", "pairs"), ("held-out", "pairs"), ("edit.duo", "train")])
def test_what_processes_that_erase_together_are_at_is_told_by_their_claims(set_up: Run, claim: str, name: str) -> None:
    with hold(set_up, "joined", claim) as process:
        status = read_status(set_up)
        process.kill()
    assert [work.name for work in status.stages if work.state == "running"] == [name]


def test_the_command_prints_json_and_needs_no_torch(set_up: Run, joined: subprocess.Popen[str]) -> None:
    assert joined.poll() is None
    done = subprocess.run(
        [sys.executable, "-c", LIGHT, str(set_up.folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert [work["name"] for work in content["stages"]] == ["pairs", "train", "evaluate", "judge", "report"]
    assert content == json.loads(json.dumps(read_status(set_up).as_json()))


def test_the_command_in_words(set_up: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from duo_unlearn.cli.status import status

    add_curves(set_up, steps=450)
    status(set_up.folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("sword.yaml on mini, seed 0")
    assert lines[2].split() == ["train", "begun", "450", "of", "500", "steps,", "0:10", "left"]
    assert lines[-1] == f"next: duo erase -o {set_up.folder}"


def test_processes_of_other_machines_are_told_and_those_without_a_sign_of_life_marked(
    set_up: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "files")
    set_up.update_record(seed=0)
    clock = Clock()
    watch, hearts = Watch(clock), [heart_on("node1", clock), heart_on("node2", clock)]
    ends = contextlib.ExitStack()
    for heart in hearts:
        claim = f"claims/duo.direct.p4d.quick.{heart.process.host}"
        assert ends.enter_context(OwnerLocks(set_up.locks, heart=heart).hold(claim))
    assert [one.lives for one in holders(set_up, watch) or []] == [None, None]
    clock.beating.append(hearts[0])
    watch_others(set_up, clock.sleep, watch)
    assert clock.now <= SIGN + 1
    found = {one.host: one for one in holders(set_up, watch) or []}
    assert {host: one.lives for host, one in found.items()} == {"node1": True, "node2": False}
    assert json.loads(json.dumps(found["node2"].as_json()))["host"] == "node2"

    alive, dead = (_process(found[host]) for host in ("node1", "node2"))
    assert alive.startswith("process 71 on node1 since ")
    assert alive.endswith(", at duo.direct.p4d.quick.node1: duo attack runs/sword")
    assert dead.endswith("node2 (no sign of life: others take its work over): duo attack runs/sword")
    ends.close()
    assert holders(set_up, watch) == []
