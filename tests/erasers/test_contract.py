"""What every eraser keeps to: it says what it is, makes an edit, knows it again, and resumes bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch
from typer.testing import CliRunner

import duo_unlearn as duo
from duo_unlearn.cli.main import app
from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.provenance import edit_file
from duo_unlearn.erasers import descent
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.records import Level
from duo_unlearn.storage.files import read_tensors

from ..slow import slow_but
from .small import OPTIONS, killed_at

LIGHT = ("esd-x", "hirm")
"""A full change of weights and one of the text encoder: the others' resumption is tested as slow."""
COURSES = [name for name in ERASERS.names() if ERASERS.get(name).course is not None and not ERASERS.get(name).trains]


def settings_of(name: str) -> dict[str, object]:
    return {"eraser": name, "erasers": {name: OPTIONS.get(name, {})} if name != "duo" else {}}


@pytest.mark.parametrize("name", ERASERS.names())
def test_every_eraser_says_what_it_is_and_which_families_have_it(name: str) -> None:
    eraser = ERASERS.get(name)
    assert (eraser.name, bool(eraser.title)) == (name, True)
    assert eraser.level in get_args(Level)
    assert eraser.settings.model_validate({}).model_dump().keys() == eraser.settings.model_fields.keys()
    reasons = {family: eraser.why_not(FAMILIES.get(family)) for family in FAMILIES.names()}
    assert reasons["mini"] is None
    assert all(reason is None or len(reason) > 10 for reason in reasons.values())


def test_the_list_of_erasers_has_the_level_of_each() -> None:
    listed = CliRunner().invoke(app, ["erasers", "--json"], catch_exceptions=False)
    levels = {row["name"]: row["level"] for row in json.loads(listed.stdout)}
    assert levels == {name: ERASERS.get(name).level for name in ERASERS.names()}
    assert {name for name, level in levels.items() if level == "encoder"} == {"hirm", "advunlearn"}
    shown = CliRunner().invoke(app, ["erasers"], catch_exceptions=False).stdout
    assert shown.count("acts on the ") == len(levels)
    assert "--set erasers.robust-duo.captions.search=0.4: " in shown  # nested options too, each with its default
    assert shown.count(" by a closed form; ") == 2


@pytest.mark.parametrize("name", slow_but(ERASERS.names(), (*LIGHT, "duo", "uce")))
def test_every_eraser_makes_an_edit_of_the_run_and_knows_it_again(run_folder: Path, name: str) -> None:
    run = duo.open_run(run_folder, settings=settings_of(name), quiet=True)
    said: list[str] = []
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))

    def prediction() -> torch.Tensor:
        conditioning = run.model.condition(["a red knight holding a sword in the snow"])
        return run.model.predict(noise, torch.tensor([500]), conditioning)

    before = prediction()
    folder = duo.train(run, said.append)
    assert torch.equal(prediction(), before)  # the model is what it was
    edit = read_edit(folder, name)
    assert edit.kind == ERASERS.get(name).makes
    assert edit.provenance["concept"] == "sword"
    assert edit.provenance["base"] == run.model.fingerprint()
    with edit.on(run.model):
        assert not torch.equal(prediction(), before)
    assert torch.equal(prediction(), before)
    content = {path.name: path.read_bytes() for path in folder.iterdir()}
    duo.train(duo.open_run(run_folder, settings=settings_of(name), quiet=True), said.append)
    assert [line.partition("→")[0].strip() for line in said] == ["train: done", "train: already done"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == content


@pytest.mark.parametrize("name", slow_but(COURSES, LIGHT))
def test_a_training_that_was_killed_goes_on_bit_for_bit(
    run_folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "CHECKPOINT_EVERY", 1)
    whole = shutil.copytree(run_folder, tmp_path / "whole", ignore=shutil.ignore_patterns("edits", "train"))
    killed = shutil.copytree(whole, tmp_path / "killed")

    def train(folder: Path) -> dict[str, torch.Tensor]:
        made = duo.train(duo.open_run(folder, settings=settings_of(name), quiet=True))
        return read_tensors(edit_file(made))[0]

    expected = train(whole)
    with killed_at(monkeypatch, 2):
        train(killed)
    again = train(killed)
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[key], expected[key]) for key in expected)
    passes = [read_edit(folder / "edits" / name, name).provenance["passes"] for folder in (whole, killed)]
    assert passes[0] == passes[1]
    assert (passes[0] > 0) == (name != "hirm")  # which never asks the denoiser
