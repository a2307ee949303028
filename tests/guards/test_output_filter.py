"""The output filter: what it refuses and what it leaves alone, and that refusals are counted, wrong ones too."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import duo_unlearn as duo
from duo_unlearn.arena.target import guarded
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import Scene

from ..arena.detectors import Bright, Fussy
from ..arena.small_run import make_run, reopen, stamps
from .small import context_of, sample


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


def test_what_passes_is_the_models_own_bit_for_bit(model: Model, tmp_path: Path) -> None:
    hooks = GUARDS.get("output-filter").build({}, context_of(model, tmp_path, Bright(1.1)))
    assert torch.equal(sample(model, hooks, steps=2), sample(model, None, steps=2))


def test_it_refuses_what_the_detector_sees_or_fails_on(model: Model, tmp_path: Path) -> None:
    images = [draw(Scene("knight", "red", "none", place)) for place in ("night", "snow")]
    model.hooks = [GUARDS.get("output-filter").build({}, context_of(model, tmp_path, Bright(0.5)))]
    assert guarded(model, images) == [images[0], None]
    fussy = Fussy(Bright(1.1), {images[0].tobytes()})
    model.hooks = [GUARDS.get("output-filter").build({}, context_of(model, tmp_path, fussy))]
    assert guarded(model, images) == [None, images[1]]
    model.hooks = []


@pytest.mark.slow
def test_refusals_are_counted_on_prompts_that_ask_for_nothing_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A filter that refuses everything defends everything, and its false positives say what that costs."""
    (tmp_path / "wary.py").write_text("def everything(images):\n    return [1.0] * len(images)\n")
    monkeypatch.syspath_prepend(tmp_path)
    options = {"guards.output-filter.detector": "wary:everything", "evaluate.steps": 2, "evaluate.inversion_prompts": 0}
    run = make_run(tmp_path, options)
    results = duo.evaluate(run, ["output-filter"])
    found = {(e.metric, e.scenario, e.system): e.value for e in results.estimates}
    assert found["refused", "keep", "output-filter"] == 1
    assert found["refused", "direct", "output-filter"] == 1
    assert found["dsr", "direct", "output-filter"] == 1
    assert ("refused", "keep", "original") not in found


@pytest.mark.slow
def test_another_detector_or_threshold_is_another_system_and_is_sampled_anew(tmp_path: Path) -> None:
    options = {"evaluate.steps": 2, "evaluate.inversion_prompts": 0, "evaluate.judges": ["mini-judge"]}
    run = make_run(tmp_path, options)
    duo.evaluate(run, ["duo+output-filter"])
    before, first = stamps(run.run.folder), run.system("duo+output-filter")
    assert first.guards[0].detector == str(run.detector.contract)
    assert first.as_json()["guards"][0]["detector"] == first.guards[0].detector

    # The guard's options are as they were: the run asks another detector, under another contract.
    other = reopen(run.run.folder, detector="mini-judge-b")
    second = other.system("duo+output-filter")
    assert second.guards[0].options == first.guards[0].options
    assert second.guards[0].detector.startswith("mini-judge-b[")
    duo.evaluate(other, ["duo+output-filter"])
    after = stamps(run.run.folder)
    moved = {path.split("/")[1] for path in before if after[path] != before[path]}
    assert moved == {"duo+output-filter"}
    asked = {path.split("/")[2] for path in before if path.startswith("attempts/duo+output-filter")}
    parts = {path for path in before if path.startswith("attempts/duo+output-filter") and path.endswith(".json")}
    assert asked >= {"direct", "keep"}
    assert all(after[path] != before[path] for path in parts)

    strict = reopen(run.run.folder, **{"guards__output-filter__threshold": 0.95, "detector": "mini-judge"})
    assert ">=0.95]" in strict.system("duo+output-filter").guards[0].detector
    hashes = {one.sha256 for one in (first, second, strict.system("duo+output-filter"))}
    assert len(hashes) == 3


def test_what_asks_no_detector_is_described_as_it_always_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    system = run.system("duo+negative-prompt")
    (guard,) = system.as_json()["guards"]
    assert set(guard) == {"name", "options", "pairs"}
    # A guard that makes other images now is another one, and says so.
    monkeypatch.setattr(GUARDS.get("negative-prompt"), "version", 2)
    other = run.system("duo+negative-prompt")
    assert other.as_json()["guards"] == [{**guard, "version": 2}]
    assert other.sha256 != system.sha256
