"""Rounds of robust DUO: trained, attacked on training prompts, and trained anew with what was found."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import duo_unlearn as duo
from duo_unlearn.arena import group_work, rounds
from duo_unlearn.arena.check import check_run
from duo_unlearn.edits.provenance import WEIGHTS, edit_names, read_provenance
from duo_unlearn.erasers import descent
from duo_unlearn.erasers.robust.bank import Caption, distinct, read_bank, write_bank
from duo_unlearn.erasers.robust.rounds import rounds_of
from duo_unlearn.erasers.robust.settings import RobustSettings
from duo_unlearn.erasers.wraps import is_round, round_name
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.costs import earlier_stages
from duo_unlearn.families.interface import Conditioning
from duo_unlearn.report.status import read_stage
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.metrics import append_line
from duo_unlearn.runs.rounds import Round, bank_file, read_rounds, write_rounds
from duo_unlearn.session import Session
from duo_unlearn.settings.check import check_family
from duo_unlearn.settings.source import edit_source
from duo_unlearn.settings.tree import resolve, write_settings
from duo_unlearn.storage.files import sha256_of, write_json
from duo_unlearn.storage.forms import deciding
from duo_unlearn.system import EditFile

from .small import killed_at

ROBUST: dict[str, Any] = {
    "max_train_steps": 3, "rank": 2, "hold_batch": 1, "rounds": 2, "round_prompts": 2,
    "round_attacks": ["unlearndiffatk", "concept-inversion"],
    "round_budgets": {"unlearndiffatk": {"timesteps": 2, "steps": 2}, "concept-inversion": {"steps": 4, "batch": 2}},
}  # fmt: skip
GIVEN: dict[str, Any] = {"eraser": "robust-duo", "floor": "uce", "erasers": {"robust-duo": ROBUST}}
NO_SEARCH = {"unsafe": 0.5, "empty": 0.2, "random": 0.3, "search": 0.0}
BY_ONE = """
import sys
import duo_unlearn as duo
from duo_unlearn.arena.edits import make_edit_by_one
run = duo.open_run(sys.argv[1], quiet=True)
with run.run.lock(shared=True):
    make_edit_by_one(run)
"""


def opened(folder: Path, **more: Any) -> Session:
    """The run as a new process opens it."""
    return duo.open_run(folder, settings={**GIVEN, **more}, quiet=True)


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("edits", "train", "bank", "rounds"))
    return target


@contextlib.contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, call: int = 1) -> Iterator[None]:
    """Inside the block a process dies when it calls a function for the `call`-th time."""
    real, called = getattr(module, name), []

    def die(*arguments: Any) -> Any:
        called.append(1)
        if len(called) == call:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, name, die)
    with pytest.raises(KeyboardInterrupt):
        yield
    monkeypatch.setattr(module, name, real)


def options(**changes: Any) -> RobustSettings:
    return RobustSettings.model_validate({**ROBUST, **changes})


def test_rounds_after_the_first_have_a_share_for_what_was_found() -> None:
    assert rounds_of(options(rounds=1)) is None
    made = rounds_of(options(round_share=0.5))
    assert made is not None
    halves = {"unsafe": 0.2, "own": 0.0, "empty": 0.05, "random": 0.05, "search": 0.2, "bank": 0.5, "free": 0.0}
    assert (made.trainings, made.later, made.bank) == (2, {"captions": halves}, None)
    # A bank of the user's own is read in every round, in the share that it has.
    own = {"unsafe": 0.5, "empty": 0.0, "random": 0.0, "search": 0.2, "bank": 0.3}
    given = rounds_of(options(captions=own, bank="mine.safetensors"))
    assert given is not None
    assert (given.later, given.bank) == ({}, Path("mine.safetensors"))


def test_how_many_rounds_there_are_decides_no_training_by_itself() -> None:
    assert deciding(options()) == deciding(options(rounds=3, round_prompts=9, round_attacks=["p4d"], round_budgets={}))
    assert deciding(options()) != deciding(options(max_train_steps=4))


@pytest.mark.parametrize(
    ("changes", "family", "said"),
    [
        ({"round_attacks": ["p4d", "tina"]}, "mini", "tina finds no caption"),
        ({"round_attacks": ["p4b"]}, "mini", "p4b finds no caption"),
        ({}, "flux", "soft-prompt can attack"),
        ({"round_budgets": {"p4d": {"steps": 1}}}, "mini", "p4d is none of round_attacks"),
        ({"round_budgets": {"unlearndiffatk": {"step": 1}}}, "mini", "unlearndiffatk has no step"),
        ({"round_budgets": {"unlearndiffatk": {"steps": "ten"}}}, "mini", "steps='ten': input should be a valid"),
        ({"round_budgets": {"unlearndiffatk": {"steps": True}}}, "mini", "steps=True: input should be a valid"),
        ({"round_budgets": {"unlearndiffatk": {"steps": 0}}}, "mini", "steps=0: it must be above 0"),
        ({"round_budgets": {"unlearndiffatk": {"lr": -0.1}}}, "mini", "lr=-0.1: it must be above 0"),
        ({"round_attacks": ["p4d"], "round_budgets": {"p4d": {"every": 3}}}, "mini", "tokens or every is a number"),
        ({"round_attacks": ["p4d"]}, "sd1", "p4d scores images by CLIP"),
        ({"round_attacks": ["sneakyprompt"]}, "sdxl", "sneakyprompt scores images by CLIP"),
    ],
)
def test_attacks_that_cannot_be_are_told_before_anything_is_trained(
    changes: dict[str, Any], family: str, said: str
) -> None:
    given = {**ROBUST, "round_budgets": {}, **changes}
    settings = resolve({"eraser": "robust-duo", "erasers": {"robust-duo": {**given, "captions": NO_SEARCH}}})
    with pytest.raises(DuoError, match="cannot be used so") as raised:
        check_family(settings, family)
    assert said in str(raised.value.got)
    check_family(resolve(settings.model_dump(), {"erasers": {"robust-duo": {"rounds": 1}}}), family)


def test_an_earlier_round_is_not_taken_for_the_runs_edit(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    write_settings(run.settings, resolve(GIVEN))
    name = round_name("robust-duo", 1)
    assert is_round(name, "robust-duo")
    assert not is_round("robust-duo-round-a", "robust-duo")
    run.edit(name).mkdir(parents=True)
    with pytest.raises(DuoError, match="there is no edit"):
        edit_source(run.folder)
    assert edit_source(run.folder, name).name == name


def test_what_several_rounds_found_is_kept_once() -> None:
    ids, vector = torch.tensor([1, 2]), torch.ones(3)
    behind = Conditioning(torch.zeros(1, 2, 3))
    first = [Caption("p4d", "a", ids=ids), Caption("soft-prompt", "", behind=behind)]
    second = [
        Caption("p4d", "a", ids=ids.clone()), Caption("p4d", "a", ids=ids + 1), Caption("p4d", "a", vector=vector),
        Caption("soft-prompt", "", behind=Conditioning(torch.zeros(1, 2, 3))),
    ]  # fmt: skip
    assert distinct([*first, *second]) == [*first, second[1], second[2]]


def test_earlier_rounds_are_part_of_what_an_edit_cost(tmp_path: Path) -> None:
    edit = EditFile("robust-duo", tmp_path, "0")
    for bank, stages in (
        ({}, []),
        ({"bank": {"sha256": "1"}}, []),  # that `duo bank` filled
        ({"bank": {"round": 2}}, [f"{stage} robust-duo-round-{k}" for k in (1, 2) for stage in ("train", "attack")]),
    ):
        write_json(tmp_path / "provenance.json", bank)
        assert earlier_stages(edit) == stages


def test_a_bank_that_was_changed_is_a_fault_of_the_run(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    write_settings(run.settings, resolve(GIVEN))
    bank = bank_file(run, "robust-duo-round-1")
    write_bank(bank, [Caption("p4d", "a", ids=torch.tensor([1]))], {})
    write_rounds(run, "robust-duo", [Round(1, "robust-duo-round-1", "0", "s", "key", sha256_of(bank), [])])
    assert check_run(run.folder).faults == []
    write_bank(bank, [Caption("p4d", "a", ids=torch.tensor([2]))], {})
    (fault,) = check_run(run.folder).faults
    assert "its SHA-256 differs" in str(fault)


def test_status_counts_the_steps_of_all_rounds(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    write_settings(run.settings, resolve(GIVEN))
    for name, steps in (("robust-duo-round-1", 3), ("robust-duo", 1)):
        for step in range(1, steps + 1):
            append_line(run.metrics(name), {"step": step, "loss": 0.5})
    run.edit("robust-duo-round-1").mkdir(parents=True)
    train = read_stage(run, "train")
    assert (train.state, train.done, train.of, train.note) == ("begun", 4, 6, "2 rounds")


def test_status_counts_the_steps_of_the_eraser_that_runs(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    settings = {"eraser": "robust-duo", "train": {"max_train_steps": 7}, "erasers": {"robust-duo": {"rounds": 2}}}
    write_settings(run.settings, resolve(settings))
    assert read_stage(run, "train").of == 2 * RobustSettings().max_train_steps


@pytest.fixture(scope="module")
def whole(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose edit was made in two rounds without a stop."""
    folder = copied(run_folder, tmp_path_factory.mktemp("rounds") / "run")
    duo.train(opened(folder))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_rounds_leave_a_bank_and_how_each_went(whole: Path) -> None:
    run = Run(whole)
    assert edit_names(run.edits) == ["robust-duo", "robust-duo-round-1", "uce"]
    assert [system.name for system in opened(whole).systems()] == ["original", "uce+robust-duo"]
    first, second = read_rounds(run, "robust-duo")
    assert [(one.number, one.system) for one in (first, second)] == [
        (1, "uce+robust-duo-round-1"),
        (2, "uce+robust-duo"),
    ]
    assert second.bank is None
    for one in (first, second):
        assert [(e.attack, e.n, e.system) for e in one.dsr] == [(a, 2, one.system) for a in ROBUST["round_attacks"]]
    bank = bank_file(run, "robust-duo-round-1")
    captions, provenance = read_bank(bank)
    assert sha256_of(bank) == first.bank
    assert {caption.attack for caption in captions} == set(ROBUST["round_attacks"])
    assert (provenance["round"], provenance["system"]["name"]) == (1, "uce+robust-duo-round-1")
    # The first round read no bank, and the second one the first one's, with a share of its own.
    assert "bank" not in read_provenance(run.edit("robust-duo-round-1"))
    last = read_provenance(run.edit("robust-duo"))
    assert last["bank"] == {**provenance, "sha256": first.bank}
    assert last["settings"]["captions"]["bank"] == pytest.approx(0.2)
    assert sum(last["settings"]["captions"].values()) == pytest.approx(1)
    assert not (run.attempts / "uce+robust-duo").exists()  # the run's own attempts are as they were
    assert check_run(whole).faults == []
    said: list[str] = []
    before = {path: path.read_bytes() for path in sorted(whole.glob("[er][do]*s/**/*.safetensors"))}
    duo.train(opened(whole), said.append)
    assert [line.partition(" →")[0] for line in said if " →" in line] == [
        "round 1 of 2: already done", "round 2 of 2: already done", "train: already done",
    ]  # fmt: skip
    assert {path: path.read_bytes() for path in before} == before
    duo.report(whole)
    assert "after round 2" in Run(whole).report.read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_anywhere_it_goes_on_to_the_same_bytes(
    whole: Path, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(run_folder, tmp_path / "run")
    monkeypatch.setattr(descent, "CHECKPOINT_EVERY", 1)
    with killed_at(monkeypatch, 3):  # in the first round, whose checkpoint is there
        duo.train(opened(folder))
    for module, name in (
        (group_work, "write_part"),  # in an attack, when it has found something
        (rounds, "write_bank"),  # when all attacks are done
        (rounds, "write_rounds"),  # when their bank is there
    ):
        with dying(monkeypatch, module, name):
            duo.train(opened(folder))
    with killed_at(monkeypatch, 2):  # in the second round
        duo.train(opened(folder))
    with dying(monkeypatch, group_work, "write_part", 2):  # in the attacks on it
        duo.train(opened(folder))
    duo.train(opened(folder))
    for file in (
        f"edits/robust-duo-round-1/{WEIGHTS}", "rounds/robust-duo-round-1.safetensors", f"edits/robust-duo/{WEIGHTS}",
        "rounds/robust-duo.json",
    ):  # fmt: skip
        assert (folder / file).read_bytes() == (whole / file).read_bytes(), file


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_processes_share_the_attacks_and_come_to_the_same_bytes(whole: Path, run_folder: Path, tmp_path: Path) -> None:
    folder = copied(run_folder, tmp_path / "run")
    opened(folder).finish("pairs", 0.0, "done")  # writes the settings
    processes = [subprocess.Popen([sys.executable, "-c", BY_ONE, str(folder)]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    for file in (f"edits/robust-duo/{WEIGHTS}", "rounds/robust-duo.json"):
        assert (folder / file).read_bytes() == (whole / file).read_bytes(), file


def test_what_attacks_found_on_images_of_another_sampling_is_not_done(run: Run) -> None:
    asked = rounds_of(RobustSettings(rounds=2))
    assert asked is not None

    def key(**evaluate: float) -> str:
        there: Any = SimpleNamespace(
            run=run, settings=resolve({"evaluate": evaluate}), detector=SimpleNamespace(contract="a judge")
        )
        system: Any = SimpleNamespace(sha256="of the round")
        return rounds._Attacked(there, "robust-duo", 1, "robust-duo-round-1", system, asked, None, is_last=False).key

    assert len({key(), key(steps=20), key(guidance=3)}) == 3
    assert key(prompts=7) == key()
