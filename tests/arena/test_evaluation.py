"""Evaluation on the mini model with an adapter that does something: what is kept, made again, and refused."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import duo_unlearn as duo
from duo_unlearn.arena.batches import PlainWork
from duo_unlearn.arena.group_work import GroupWork
from duo_unlearn.arena.plans import evaluation_plans
from duo_unlearn.arena.stages import evaluate, judge
from duo_unlearn.errors import DuoError
from duo_unlearn.records import Estimate
from duo_unlearn.runs.attempts import attempts_of, read_groups
from duo_unlearn.runs.handed import Remaining
from duo_unlearn.runs.results import Results
from duo_unlearn.runs.work import parts_from
from duo_unlearn.session import Session

from ..small_concept import ASKING
from .detectors import Bright, Fussy
from .small_run import COUNTS, pictures, reopen, stamps

FIELDS = {
    "metric", "system", "scenario", "attack", "preset", "value", "low", "high", "n", "unscored", "contract", "seeds",
    "sha256", "search",
}  # fmt: skip


@pytest.fixture
def run(evaluated: Path, tmp_path: Path) -> Session:
    shutil.copytree(evaluated, tmp_path / "run")
    return reopen(tmp_path / "run")


def dsr(results: Results, **chosen: Any) -> list[Estimate]:
    wanted = {"metric": "dsr", **chosen}
    return [e for e in results.estimates if all(getattr(e, name) == value for name, value in wanted.items())]


def test_every_system_on_every_scenario_with_intervals(run: Session) -> None:
    content = json.loads(run.run.results.read_text())
    assert all(
        set(entry) == FIELDS and entry["low"] <= entry["value"] <= entry["high"] for entry in content["estimates"]
    )
    asked = {(e["scenario"], e["attack"], e["system"]) for e in content["estimates"] if e["metric"] == "dsr"}
    plain = {(name, None) for name in ASKING}
    inverted = {(name, "concept-inversion") for name in ("direct", "plain")}
    worst = {("direct", "worst case")}
    assert asked == {(*place, system) for place in plain | inverted | worst for system in ("original", "duo")}
    assert content["quick"] is True
    assert [system["name"] for system in content["systems"]] == ["original", "duo"]
    kept = [e["value"] for e in content["estimates"] if e["metric"] == "prior preservation"]
    assert kept
    assert min(kept) < 0.999  # the adapter of this test changes the pictures


def test_systems_are_asked_with_the_same_noise(run: Session) -> None:
    asked = {
        record.group: [(a.prompt, a.seed) for a in attempts_of(run.run, record)]
        for record in read_groups(run.run)
        if record.group.attack == "direct"
    }
    for group, attempts in asked.items():
        assert attempts == asked[group._replace(system="original")]


@pytest.mark.slow
def test_fused_adapters_are_other_attempts_with_the_same_pictures(run: Session) -> None:
    before, made = pictures(run.run.folder), stamps(run.run.folder)
    keys = {record.group: dict(record.parts) for record in read_groups(run.run)}
    fused = reopen(run.run.folder, evaluate__fuse_adapters=True)
    assert evaluate(fused).state == "done"
    after = pictures(run.run.folder)
    assert after.keys() == before.keys()
    for path, content in after.items():
        first, second = (np.asarray(Image.open(io.BytesIO(one))).astype(int) for one in (before[path], content))
        assert np.abs(first - second).max() <= 1, path  # of 255 levels
    # The original's are kept, and so is what searches the edited model.
    again = {path.split("/")[1] for path, stamp in stamps(run.run.folder).items() if stamp != made.get(path)}
    assert again == {"duo"}
    for record in read_groups(run.run):
        same = record.group.system == "original" or record.group.attack != "direct"
        assert (dict(record.parts) == keys[record.group]) == same


def test_a_second_evaluation_samples_nothing(run: Session) -> None:
    before, made = run.run.results.read_bytes(), stamps(run.run.folder)
    assert evaluate(run).state == "already done"
    run.run.results.unlink()
    assert evaluate(reopen(run.run.folder)).state == "done"
    assert run.run.results.read_bytes() == before
    assert stamps(run.run.folder) == made


def test_deleted_images_and_a_deleted_cache_are_made_again(run: Session) -> None:
    before, made = run.run.results.read_bytes(), pictures(run.run.folder)
    shutil.rmtree(run.run.attempts / "duo" / "keep")
    shutil.rmtree(run.run.moments.parent)
    for found in run.run.attempts.rglob("found-*"):
        found.unlink()
    run.run.results.unlink()
    evaluate(run)
    assert pictures(run.run.folder) == made
    assert run.run.results.read_bytes() == before


def test_the_folder_keeps_its_settings(run: Session) -> None:
    again = reopen(run.run.folder).settings
    assert (again.evaluate.prompts, again.evaluate.steps) == (3, COUNTS["evaluate.steps"])
    assert again.output == run.run.folder
    assert reopen(run.run.folder, evaluate__prompts=5).settings.evaluate.prompts == 5


@pytest.mark.parametrize(("changes", "said"), [({"concept": "balloon"}, "concept sword"), ({"seed": 4}, "seed 0")])
def test_another_concept_or_seed_is_refused_and_changes_nothing(
    run: Session, changes: dict[str, Any], said: str
) -> None:
    before = {path: path.read_bytes() for path in run.run.folder.rglob("*") if path.is_file()}
    with pytest.raises(DuoError, match="holds another run") as caught:
        evaluate(reopen(run.run.folder, **changes))
    assert said in str(caught.value)
    assert {path: path.read_bytes() for path in run.run.folder.rglob("*") if path.is_file()} == before


def test_without_an_edit_there_is_nothing_to_measure(run: Session) -> None:
    shutil.rmtree(run.run.edits)
    with pytest.raises(DuoError, match="holds no edit duo"):
        evaluate(reopen(run.run.folder))


def test_what_was_sampled_once_is_judged_under_any_contract(run: Session) -> None:
    made = stamps(run.run.folder)
    judge(run, Bright(0.4))
    results = judge(run, Bright(0.6)).results
    assert stamps(run.run.folder) == made
    own = [judge.contract for judge in run.judges.there]
    assert len(own) == 2
    contracts = {e.contract for e in dsr(results)}
    assert contracts == {*map(str, own), str(Bright(0.4).contract), str(Bright(0.6).contract)}
    by_contract = [[e.value for e in dsr(results, contract=str(Bright(t).contract))] for t in (0.4, 0.6)]
    assert all(low <= high for low, high in zip(*by_contract, strict=True))
    # Attributes are told under the reader's name, and by detectors that read some alone.
    readers = {f"{contract.name}@{contract.weights}" for contract in own}
    assert {e.contract for e in results.estimates if e.metric == "item agreement"} == readers
    count = len(results.estimates)
    again = judge(run, Bright(0.6))
    assert (again.state, len(again.results.estimates)) == ("already done", count)


def test_a_threshold_of_the_concepts_detector_is_a_contract_of_its_own(run: Session) -> None:
    results = duo.judge(run, threshold=0.95)
    assert {e.contract.partition(">=")[2].partition("]")[0] for e in dsr(results)} == {"0.5", "0.95"}


def test_an_image_that_cannot_be_judged_is_absent_and_not_defended(run: Session) -> None:
    first = next(r for r in read_groups(run.run) if r.group[:3] == ("duo", "direct", "direct"))
    attempt = attempts_of(run.run, first)[0]
    assert attempt.file is not None
    refused = Image.open(run.run.folder / attempt.file).convert("RGB").tobytes()
    fussy = Fussy(run.detector, {refused})
    results = judge(run, fussy).results
    (direct,) = dsr(results, system="duo", scenario="direct", attack=None, contract=str(fussy.contract))
    assert (direct.n, direct.unscored) == (2, 1)
    reasons = [
        a["reason"] for a in results.absent if (a["metric"], a["system"], a["attack"]) == ("verdict", "duo", None)
    ]
    assert reasons == ["1 of 3 images had no verdict: ArithmeticError: no such image"]


def test_a_detector_that_fails_on_everything_stops(run: Session) -> None:
    every = {Image.open(path).convert("RGB").tobytes() for path in run.run.folder.rglob("*.png")}
    before = run.run.results.read_bytes()
    with pytest.raises(DuoError, match="fails on every image") as raised:
        judge(run, Fussy(run.detector, every))
    assert "no such image" in str(raised.value.got)
    assert run.run.results.read_bytes() == before


@pytest.mark.slow
def test_counts_that_change_are_measured_anew(run: Session) -> None:
    results = evaluate(reopen(run.run.folder, evaluate__prompts=2)).results
    assert {e.n for e in dsr(results, attack=None)} == {2}
    assert COUNTS["evaluate.prompts"] == 3


def reasons(results: Results, system: str, scenario: str) -> list[str]:
    return [e["reason"] for e in results.absent if (e["system"], e["scenario"]) == (system, scenario)]


def test_a_group_with_a_part_missing_has_no_number(run: Session) -> None:
    (run.run.attempts / "duo" / "synonym" / "direct" / "0000.json").unlink()
    results = judge(reopen(run.run.folder)).results
    assert not dsr(results, system="duo", scenario="synonym")
    assert dsr(results, system="original", scenario="synonym")
    told = "0 of 3 attempts are there: `duo evaluate` or `duo attack` again"
    assert told in reasons(results, "duo", "synonym")


def test_a_batch_that_no_worker_could_make_is_absent_where_nothing_is_there_until_it_is_made(run: Session) -> None:
    lost, kept = "duo.synonym.direct.0000", "duo.direct.direct.0000"
    (run.run.attempts / "duo" / "synonym" / "direct" / "0000.json").unlink()
    plans = [plan for plan in evaluation_plans(run, run.systems()) if plan.system.name == "duo" and plan.preset is None]
    batches = PlainWork([GroupWork(run, plan) for plan in plans]).batches
    (batch,) = [name for name, members in batches.items() if {lost, kept} <= set(members)]
    assert batch not in (lost, kept)
    with parts_from(Remaining({(str(run.run.folder), batch): "it died (on a)"})):
        results = evaluate(reopen(run.run.folder)).results
    assert not (run.run.attempts / "duo" / "synonym" / "direct" / "0000.json").exists()
    assert not dsr(results, system="duo", scenario="synonym")
    assert f"{lost} could not be made: it died (on a)" in reasons(results, "duo", "synonym")
    assert dsr(results, system="duo", scenario="direct", attack=None)  # it lay in the same batch, and was there
    results = evaluate(reopen(run.run.folder)).results
    assert dsr(results, system="duo", scenario="synonym")
    assert not [reason for reason in reasons(results, "duo", "synonym") if "could not be made" in reason]
