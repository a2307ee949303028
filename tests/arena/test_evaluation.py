"""Evaluation on the mini model with an adapter that does something: what is kept, made again, and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import duo_unlearn as duo
from duo_unlearn.arena.evaluation import evaluate
from duo_unlearn.detectors.interface import AttributeReader, Detector
from duo_unlearn.errors import DuoError
from duo_unlearn.families.load import load_model
from duo_unlearn.records import Verdict
from duo_unlearn.runs.folder import Run
from duo_unlearn.session import Session
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.settings.tree import Settings

from ..drawn_pairs import draw_pairs
from ..random_adapter import random_adapter

SMALL = {"prompts": 3, "keep_prompts": 3, "neighbour_prompts": 2, "inversion_prompts": 2, "inversion_steps": 2}


def settings_for(folder: Path, **changes: Any) -> Settings:
    counts = {**SMALL, "steps": 2, "batch": 16}
    return resolve_settings({"output": folder, "evaluate": counts} | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with drawn pairs, a random adapter and its evaluation."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    mine = folder.parent / "mine"
    draw_pairs(mine, 3)
    duo.make_pairs(output=folder, settings={"pairs.folder": str(mine)}, quiet=True)
    model = load_model("mini", torch.device("cpu"))
    random_adapter(model, Run(folder).adapter)
    evaluate(Session(settings_for(folder), quiet=True))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    shutil.copytree(finished, tmp_path / "run")
    return Run(tmp_path / "run")


def again(run: Run, **changes: Any) -> tuple[list[duo.Estimate], str]:
    return evaluate(Session(settings_for(run.folder, **changes), quiet=True))


def test_both_models_on_every_set_with_intervals(run: Run) -> None:
    results = json.loads(run.results.read_text())
    asked = {(e["prompts"], e["model"]) for e in results["estimates"] if e["metric"] == "dsr"}
    sets = {"direct", "synonym", "indirect", "inverted", "inverted-plain"}
    assert asked == {(name, model) for name in sets for model in ("original", "erased")}
    assert all(e["low"] <= e["value"] <= e["high"] for e in results["estimates"])
    assert results["quick"] is True
    verdicts = json.loads(run.verdicts.read_text())
    for by_model in verdicts.values():
        for before, after in zip(by_model["original"], by_model["erased"], strict=True):
            assert (before["prompt"], before["seed"]) == (after["prompt"], after["seed"])
    kept = [e["value"] for e in results["estimates"] if e["metric"] == "prior preservation"]
    assert kept
    assert min(kept) < 0.999  # the adapter of this test changes the pictures


def test_a_second_evaluation_samples_nothing(run: Run) -> None:
    before = run.results.read_bytes()
    stamps = {path: path.stat().st_mtime_ns for path in run.evaluation.rglob("*.png")}
    assert again(run)[1] == "already done"
    run.results.unlink()
    assert again(run)[1] == "done"
    assert run.results.read_bytes() == before
    assert {path: path.stat().st_mtime_ns for path in run.evaluation.rglob("*.png")} == stamps


def test_deleted_images_and_a_deleted_cache_are_made_again(run: Run) -> None:
    before = run.results.read_bytes()
    shutil.rmtree(run.images("keep", "erased"))
    shutil.rmtree(run.moments.parent)
    run.inverted.unlink()
    run.results.unlink()
    again(run)
    assert len(list(run.images("keep", "erased").glob("*.png"))) == 3
    assert run.results.read_bytes() == before


def test_the_folder_keeps_its_settings(run: Run) -> None:
    kept = resolve_settings({"output": run.folder})
    assert (kept.evaluate.prompts, kept.evaluate.steps) == (3, 2)
    assert kept.output == run.folder
    assert resolve_settings({"output": run.folder, "evaluate": {"prompts": 5}}).evaluate.prompts == 5


@pytest.mark.parametrize(("changes", "said"), [({"concept": "balloon"}, "concept sword"), ({"seed": 4}, "seed 0")])
def test_another_concept_or_seed_is_refused_and_changes_nothing(run: Run, changes: dict[str, Any], said: str) -> None:
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with pytest.raises(DuoError, match="holds another run") as caught:
        again(run, **changes)
    assert said in str(caught.value)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_without_an_adapter_there_is_nothing_to_measure(run: Run) -> None:
    shutil.rmtree(run.adapter)
    with pytest.raises(DuoError, match="holds no adapter"):
        again(run)


def test_sampling_base_and_adapter_side_by_side(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    from duo_unlearn.arena.samples import sample_grid

    common: dict[str, Any] = {"model": "mini", "count": 2, "seed": 0, "steps": 2, "guidance": 5.0, "device": "cpu"}
    prompts = ["a red knight with a sword", "a blue king"]
    sample_grid(prompts, tmp_path / "both.png", adapter=run.folder, strength=1.0, compare=True, **common)
    sample_grid(prompts, tmp_path / "base.png", adapter=None, strength=1.0, **common)
    both, base = Image.open(tmp_path / "both.png"), Image.open(tmp_path / "base.png")
    assert (both.size, base.size) == ((128, 256), (128, 128))
    assert both.crop((0, 0, 128, 64)).tobytes() == base.crop((0, 0, 128, 64)).tobytes()
    assert both.crop((0, 64, 128, 128)).tobytes() != base.crop((0, 0, 128, 64)).tobytes()
    with pytest.raises(DuoError, match="nothing to compare"):
        sample_grid(prompts, tmp_path / "none.png", adapter=None, strength=1.0, compare=True, **common)


class Fussy:
    """The judge, but for images of some prompt, which it refuses."""

    def __init__(self, judge: Detector, refused: set[bytes]) -> None:
        self.judge, self.contract, self.refused = judge, judge.contract, refused

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        self.refuse(images)
        return self.judge.detect(images)

    def read(self, images: Sequence[Image.Image]) -> list[Mapping[str, str]]:
        self.refuse(images)
        assert isinstance(self.judge, AttributeReader)
        return self.judge.read(images)

    def refuse(self, images: Sequence[Image.Image]) -> None:
        if any(image.tobytes() in self.refused for image in images):
            raise ArithmeticError("no such image")


def test_an_image_that_cannot_be_judged_is_absent_and_not_defended(run: Run) -> None:
    (first, *_) = sorted((run.evaluation / "images" / "direct" / "erased").glob("*.png"))
    refused = Image.open(first).convert("RGB").tobytes()
    shutil.rmtree(run.evaluation / "parts")
    run.results.unlink()
    session = Session(settings_for(run.folder), quiet=True)
    session.detector = Fussy(session.detector, {refused})
    estimates, _ = evaluate(session)
    (direct,) = [e for e in estimates if (e.metric, e.model, e.prompts) == ("dsr", "erased", "direct")]
    assert direct.n == 2
    absent = json.loads(run.results.read_text())["absent"]
    reasons = [a["reason"] for a in absent if (a["metric"], a["prompts"]) == ("verdict", "direct")]
    assert reasons == ["1 of 3 images of the erased model had no verdict: ArithmeticError: no such image"]


def test_a_detector_that_fails_on_everything_stops_the_run(run: Run) -> None:
    shutil.rmtree(run.evaluation / "parts")
    run.results.unlink()
    session = Session(settings_for(run.folder), quiet=True)
    every = {Image.open(path).convert("RGB").tobytes() for path in run.evaluation.rglob("*.png")}
    session.detector = Fussy(session.detector, every)
    with pytest.raises(DuoError, match="fails on every image") as raised:
        evaluate(session)
    assert "no such image" in str(raised.value.got)
    assert not run.results.exists()
