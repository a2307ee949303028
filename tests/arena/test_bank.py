"""A bank of captions is filled on training prompts alone, and robust DUO reads it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from benchmarks.commands import PAGE

import duo_unlearn as duo
from duo_unlearn.arena.bank import _captions, _findings, fill_bank
from duo_unlearn.arena.findings import FindingsFile
from duo_unlearn.arena.plans import Plan
from duo_unlearn.attacks.interface import Finding, Findings
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.concepts.prompt_sets import Counts, PromptSet, prompt_sets
from duo_unlearn.edits.files import read_edit
from duo_unlearn.erasers.robust.bank import read_bank
from duo_unlearn.erasers.robust.settings import RobustSettings
from duo_unlearn.errors import DuoError
from duo_unlearn.runs.attempts import GroupRecord, write_group
from duo_unlearn.runs.folder import Run
from duo_unlearn.session import Session
from duo_unlearn.storage.files import sha256_of, write_tensors
from duo_unlearn.system import System

from ..erasers.small import SMALL
from ..random_adapter import random_adapter

SHARES = {"unsafe": 0.5, "own": 0.0, "empty": 0.0, "random": 0.0, "search": 0.0, "bank": 0.5}
SMALLER = {"unlearndiffatk": {"timesteps": 2, "steps": 2}, "concept-inversion": {"steps": 4, "batch": 2}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A run with pairs that have prompts, and an edit."""
    folder = tmp_path_factory.mktemp("bank") / "run"
    made = duo.open_run(folder, settings=SMALL, quiet=True)
    duo.make_pairs(made)
    random_adapter(made.model, made.run.edit("duo"), size=0.08, concept="sword")
    return duo.open_run(folder, quiet=True)


@pytest.mark.slow
def test_a_bank_holds_what_is_found_on_training_prompts_and_is_read(run: Session, tmp_path: Path) -> None:
    path = tmp_path / "bank.safetensors"
    duo.fill_bank(run, path, ["unlearndiffatk", "concept-inversion"], prompts=2, budgets=SMALLER)
    captions, provenance = read_bank(path)
    assert provenance["system"]["name"] == "duo"
    assert provenance["attacks"] == ["unlearndiffatk", "concept-inversion"]
    assert provenance["seed"] != run.settings.seed
    assert not (run.run.attempts / "duo").exists()  # the run's own attempts and report are as they were
    assert [caption.vector is not None for caption in captions if caption.attack == "concept-inversion"] == [True, True]
    asked = (run.run.folder / "bank" / "training.txt").read_text().splitlines()
    assert set(asked) <= {pair.unsafe_prompt for pair in run.pairs}
    evaluated = prompt_sets(run.concept, Counts(300, 300, 100, 100), run.settings.seed)
    assert not set(asked) & {prompt.text for one in evaluated for prompt in one.prompts}
    before = path.read_bytes()
    # Nothing is searched again.
    duo.fill_bank(run, path, ["unlearndiffatk", "concept-inversion"], prompts=2, budgets=SMALLER)
    assert path.read_bytes() == before
    robust = {"max_train_steps": 2, "rank": 2, "hold_batch": 1, "captions": SHARES, "bank": str(path)}
    folder = shutil.copytree(run.run.folder, tmp_path / "run")
    settings = {"eraser": "robust-duo", "erasers": {"robust-duo": robust}}
    edit = read_edit(duo.train(duo.open_run(folder, settings=settings, quiet=True)), "robust-duo")
    assert edit.provenance["bank"] == {**provenance, "sha256": sha256_of(path)}
    # Another bank in the file's place is another training.
    duo.fill_bank(run, path, ["concept-inversion"], prompts=1, budgets=SMALLER)
    said: list[str] = []
    duo.train(duo.open_run(folder, settings=settings, quiet=True), said.append)
    assert said[0].startswith("train: done")


@pytest.mark.parametrize(
    ("attack", "said"), [("image-to-image", "finds no caption"), ("tina", "finds no caption"), ("nothing", "unknown")]
)
@pytest.mark.slow
def test_attacks_that_find_no_caption_are_refused(run: Session, tmp_path: Path, attack: str, said: str) -> None:
    with pytest.raises(DuoError, match=said):
        duo.fill_bank(run, tmp_path / "bank.safetensors", [attack])


def test_a_bank_has_what_was_asked_for_last_alone(tmp_path: Path) -> None:
    run, kind = Run(tmp_path), ATTACKS.get("unlearndiffatk")
    asked = PromptSet("file-training", "attack", [], [])
    plan = Plan(System(), asked, kind, "quick", kind.budgets["quick"])
    for part in ("0000", "0016"):  # of another time, when more prompts were attacked
        file = FindingsFile(plan.findings_group.folder(run) / f"found-{part}.json")
        file.write(Findings([Finding(part, ids=[1])]), "key", "mini", [part])
    write_group(
        run,
        GroupRecord(plan.group, "", "attack", kind.title, {}, None, None, 16, {"0000": "key"}),
    )
    assert [finding.text for found in _findings(run, plan) for finding in found.findings] == ["0000"]


def test_a_prompt_that_a_search_left_as_it_was_is_no_caption() -> None:
    asked = {"a knight with a sword", "a king with a sword"}
    texts = ["a knight with a sword", "a king with a blade"]
    found = _captions("sneakyprompt", Findings([Finding(text) for text in texts]), asked, [])
    assert [caption.text for caption in found] == ["a king with a blade"]
    searched = Findings([Finding("a king with a sword", ids=[1, 2]), Finding("a king with a sword", ids=[1, 3])])
    found = _captions("unlearndiffatk", searched, asked, [[1, 3]])
    assert [caption.ids.tolist() for caption in found if caption.ids is not None] == [[1, 2]]


def test_a_run_without_an_edit_fills_no_bank(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="holds no edit"):
        duo.fill_bank(duo.open_run(tmp_path / "run", quiet=True), tmp_path / "bank.safetensors", ["p4d"])
    (run := duo.open_run(tmp_path / "run", quiet=True)).run.edit("duo").mkdir(parents=True)
    with pytest.raises(DuoError, match="nothing was erased from what is named"):
        duo.fill_bank(run, tmp_path / "bank.safetensors", ["p4d"], system="original")


def test_another_file_is_not_replaced_by_a_bank(tmp_path: Path) -> None:
    run, path = duo.open_run(tmp_path / "run", quiet=True), tmp_path / "mine.safetensors"
    write_tensors(path, {"mine": torch.ones(1)})
    with pytest.raises(DuoError, match="is no bank of captions"):
        fill_bank(run, System(), ["p4d"], 1, path)


def test_the_help_names_the_attacks_that_fill_a_bank_by_default() -> None:
    told = PAGE.read_text(encoding="utf-8").split("\n## duo bank\n")[1].splitlines()
    row = next(line for line in told if "`--attack`" in line)
    assert all(name in row for name in RobustSettings().round_attacks)
