"""An edit of the text path below a trained adapter: made first, known to what lies on it, and never left out."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import duo_unlearn as duo
from duo_unlearn.cli.main import app
from duo_unlearn.edits.compose import compose
from duo_unlearn.edits.files import as_lora, read_edit
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.ledger import read_ledger, remaining, with_dependents
from duo_unlearn.session import Session
from duo_unlearn.settings.check import check_family

from .small import OPTIONS

GIVEN: dict[str, Any] = {"eraser": "robust-duo", "floor": "uce", "erasers": {"robust-duo": OPTIONS["robust-duo"]}}


def opened(folder: Path, **more: Any) -> Session:
    return duo.open_run(folder, settings={**GIVEN, **more}, quiet=True)


@pytest.fixture(scope="module")
def stacked(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose edit lies on another one."""
    folder = tmp_path_factory.mktemp("floor") / "run"
    shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("edits", "train"))
    duo.train(opened(folder))
    return folder


def test_the_floor_is_made_first_and_the_two_are_one_system(stacked: Path) -> None:
    run = opened(stacked)
    floor = read_edit(stacked / "edits" / "uce", "uce")
    upper = read_edit(stacked / "edits" / "robust-duo", "robust-duo")
    assert upper.provenance["on"] == [{"name": "uce", "sha256": floor.sha256}]
    assert [system.name for system in run.systems()] == ["original", "uce+robust-duo"]
    said: list[str] = []
    duo.train(run, said.append)
    assert said[0].startswith("train: already done")


def test_the_ledger_shows_the_two_as_a_chain(stacked: Path) -> None:
    floor, upper = (stacked / "edits" / name for name in ("uce", "robust-duo"))
    entries = read_ledger([floor, upper])
    assert entries[1].on == [entries[0].sha256]
    assert entries[0].pairs == entries[1].pairs
    assert with_dependents(entries, entries[:1]) == entries
    assert [entry.edit for entry in remaining(entries, [upper])] == ["uce"]
    with pytest.raises(DuoError, match="nothing of the ledger is left"):
        remaining(entries, [floor])
    shown = CliRunner().invoke(app, ["ledger", str(floor), str(upper)], catch_exceptions=False).stdout
    assert shown.count(entries[0].sha256[:16]) == 2  # its own, and what the other one is on top of


def test_a_pair_of_the_run_names_the_floor_too(stacked: Path) -> None:
    pair = opened(stacked).pairs[0].name
    assert [entry.edit for entry in duo.read_ledger([stacked])] == ["uce", "robust-duo"]
    assert [entry.edit for entry in duo.read_ledger([stacked], pair)] == ["uce", "robust-duo"]
    floor = stacked / "edits" / "uce"
    assert [entry.source for entry in duo.read_ledger([floor, stacked], pair)] == [floor, stacked]
    shown = CliRunner().invoke(app, ["ledger", str(stacked), "--pair", pair], catch_exceptions=False).stdout
    assert shown.count(read_edit(floor, "uce").sha256[:16]) == 2  # its own row, and what the other one is on top of


def test_what_it_lies_on_cannot_be_left_out_or_changed(stacked: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(stacked, folder)
    with pytest.raises(DuoError, match="is made on top of uce") as raised:
        opened(folder).system("robust-duo")
    assert "uce+robust-duo" in str(raised.value.hint)
    with pytest.raises(DuoError, match="is made on top of uce"):
        opened(folder).system("robust-duo+uce")
    other = opened(folder, eraser="uce", floor=None, erasers={"uce": {"weight": 2.0}})
    duo.train(other)
    with pytest.raises(DuoError, match="was made on another uce"):
        opened(folder).system("uce+robust-duo")


@pytest.mark.slow
def test_the_training_begins_at_the_edit_below_and_is_held_to_the_original(run_folder: Path, tmp_path: Path) -> None:
    def first_step(name: str, **more: Any) -> dict[str, float]:
        folder = tmp_path / name
        shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("edits", "train"))
        options = {**OPTIONS["robust-duo"], "max_train_steps": 1, **more.pop("options", {})}
        duo.train(opened(folder, erasers={"robust-duo": options}, **more))
        line: dict[str, float] = json.loads((folder / "train" / "robust-duo" / "metrics.jsonl").read_text())
        return line

    floored, apart = first_step("floored"), first_step("apart", floor=None)
    assert floored["preference"] == pytest.approx(math.log(2), abs=1e-5)  # policy and reference are both the floor's
    assert floored["hold"] > apart["hold"] == 0  # the floor has moved what must stay
    assert first_step("to-floor", options={"hold_to": "floor"})["hold"] == 0
    assert floored["gradient_norm"] != apart["gradient_norm"]


@pytest.mark.slow
def test_a_merged_model_holds_both_and_an_adapter_would_travel_alone(stacked: Path, tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="cannot hold the edit robust-duo") as raised:
        duo.export(stacked, tmp_path / "lora")
    assert "on top of uce" in str(raised.value.got)
    done = duo.export(stacked, tmp_path / "merged", "merged")
    assert done.difference < 0.5
    described = json.loads((done.folder / "provenance.json").read_text())
    assert [one["name"] for one in described["on"]] == ["uce"]
    with pytest.raises(DuoError, match="acts on top of uce"):
        duo.export(shutil.copytree(stacked / "edits" / "robust-duo", tmp_path / "alone"), tmp_path / "other", "merged")


@pytest.mark.slow
def test_a_sheet_of_the_run_is_of_both(stacked: Path, tmp_path: Path) -> None:
    few = {"count": 1, "steps": 2}
    duo.sample(["a king holding a sword"], tmp_path / "run.png", adapter=stacked, **few)
    duo.sample(["a king holding a sword"], tmp_path / "both.png", adapter=stacked, system="uce+robust-duo", **few)
    assert (tmp_path / "run.png").read_bytes() == (tmp_path / "both.png").read_bytes()
    with pytest.raises(DuoError, match="its own strength alone"):
        duo.sample(["a king"], tmp_path / "half.png", adapter=stacked, strength=0.5, **few)
    upper = as_lora(read_edit(stacked / "edits" / "robust-duo", "robust-duo"))
    with pytest.raises(DuoError, match="cannot be added up"):
        compose([upper, upper], [1, 1], tmp_path / "sum")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"floor": "robust-duo"}, "a system holds each edit once"),
        ({"floor": "spm"}, "it makes an adapter"),
        ({"eraser": "duo"}, "duo is not made to train on top"),
        ({"eraser": "esd-x"}, "esd-x is not made to train on top"),
    ],
)
def test_what_cannot_lie_below_is_told(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    run = opened(tmp_path / "run", **given)
    with pytest.raises(DuoError, match="cannot lie below") as raised:
        check_family(run.settings, run.family)
    assert said in str(raised.value.got)
