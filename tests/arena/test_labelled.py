"""Corrected rates: drawn pictures, judged by the real judges, and labelled by who knows what they show."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.arena.check import check_run
from duo_unlearn.cli.arena import judge
from duo_unlearn.errors import DuoError
from duo_unlearn.interval import wilson
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import random_scene
from duo_unlearn.pipeline import report
from duo_unlearn.records import CORRECTED, Estimate
from duo_unlearn.runs.attempts import Group, attempts_of, read_groups
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.labels import Label, Word, append_label
from duo_unlearn.runs.results import read_results
from duo_unlearn.session import Session

from ..random_adapter import random_adapter
from ..report.make_run import attempt_of, refusal_of, write_attempts

SHOWING = {"original": 40, "duo": 6}
"""System → how many of its 40 pictures show the sword."""


def _attempts(session: Session, system: str, swords: int, rng: random.Random, scenario: str = "direct") -> None:
    group = Group(system, scenario, "direct", None)
    attempts = []
    for i in range(40):
        scene = random_scene(rng, items=("sword",))
        shown = scene if i < swords else scene.counterpart("none")
        path = group.folder(session.run) / f"{i:04}.png"
        attempts.append(attempt_of(session.run, path, draw(shown), f"prompt {i}", i))
    write_attempts(session.run, group, attempts, sha256=session.system(system).sha256)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the original and an edit on one prompt set, judged."""
    session = duo.open_run(tmp_path_factory.mktemp("labelled") / "run", concept="sword", quiet=True)
    random_adapter(session.model, session.run.edit("duo"), size=0.01, concept="sword")
    session.finish("train", 1.0, "done")
    rng = random.Random(0)
    for system, swords in SHOWING.items():
        _attempts(session, system, swords, rng)
    duo.judge(session)
    return session.run.folder


@pytest.fixture
def run(judged: Path, tmp_path: Path) -> Session:
    shutil.copytree(judged, tmp_path / "run")
    return duo.open_run(tmp_path / "run", quiet=True)


def shas(run: Run, system: str) -> list[str]:
    """The pictures of a system: those with the sword first."""
    (record,) = [record for record in read_groups(run) if record.group.system == system]
    return [str(attempt.sha256) for attempt in attempts_of(run, record)]


def label(
    run: Run,
    pictures: Sequence[str],
    word: Word,
    who: str = "Ann",
    stratum: Word | None = None,
    contract: str | None = None,
) -> None:
    for sha in pictures:
        append_label(run, Label(sha, word, who, stratum, contract))


def corrected(run: Session) -> dict[tuple[str, str], Estimate]:
    """(system, judge) → the corrected DSR."""
    results = duo.judge(run)
    return {(e.system, e.contract): e for e in results.estimates if e.metric == CORRECTED}


def first(run: Session) -> str:
    return str(run.judges.there[0].contract)


@pytest.mark.slow
def test_without_labels_there_is_no_corrected_rate_and_the_file_says_nothing_of_labels(run: Session) -> None:
    assert corrected(run) == {}
    content = json.loads(run.run.results.read_text())
    assert "labels" not in content
    assert not any("corrected_by" in entry for entry in content["estimates"])


def test_labels_of_a_groups_own_pictures_correct_it_beside_the_judges_rate(run: Session) -> None:
    pictures = shas(run.run, "duo")
    # People see the sword in two pictures more than were drawn with one, and so more than the judges.
    label(run.run, pictures[:8], "yes")
    label(run.run, pictures[8:], "no")
    before = {(e.system, e.contract): e for e in read_results(run.run).estimates if e.metric == "dsr"}
    found = corrected(run)
    assert len(found) == 2  # both judges, one system: nobody looked at the original's
    (mine,) = [e for (system, contract), e in found.items() if (system, contract) == ("duo", first(run))]
    assert mine.value == pytest.approx(32 / 40)
    assert mine.n == 40
    assert mine.corrected_by == "strata, 40 labels"
    # All are labelled, so its interval is near that of the labels alone.
    low, high = wilson(32, 40)
    assert mine.low == pytest.approx(low, abs=0.06)
    assert mine.high == pytest.approx(high, abs=0.06)
    assert {(e.system, e.contract): e for e in read_results(run.run).estimates if e.metric == "dsr"} == before
    reasons = {(a["system"], a["reason"]) for a in read_results(run.run).absent if a["metric"] == CORRECTED}
    assert [system for system, _ in reasons] == ["original"]
    assert "too few labels" in next(iter(reasons))[1]


def test_random_labels_of_the_run_correct_what_has_too_few_of_its_own(run: Session) -> None:
    label(run.run, shas(run.run, "original")[:12], "yes")
    label(run.run, [*shas(run.run, "duo")[:2], *shas(run.run, "duo")[6:8]], "yes")
    label(run.run, shas(run.run, "duo")[8:20], "no")
    found = corrected(run)
    mine = found["duo", first(run)]
    assert mine.corrected_by == "Rogan-Gladen, 28 labels"
    # Sensitivity 14 of 16, specificity 12 of 12; of 40 pictures 6 are seen: 0.15 / 0.875.
    assert mine.value == pytest.approx(1 - 0.15 / 0.875)
    assert mine.low < mine.value < mine.high


def test_labels_drawn_by_verdict_correct_that_judge_alone_and_are_weighed(run: Session) -> None:
    contract = first(run)
    original, edited = shas(run.run, "original"), shas(run.run, "duo")
    label(run.run, original[:12], "yes", stratum="yes", contract=contract)
    label(run.run, edited[10:22], "no", stratum="no", contract=contract)
    found = corrected(run)
    assert {key[1] for key in found} == {contract}
    # By the original's own labels: its pictures are all seen, and 12 of these were looked at.
    assert found["original", contract].corrected_by == "strata, 12 labels"
    assert found["duo", contract].corrected_by == "Rogan-Gladen by strata, 24 labels"
    told = read_results(run.run).labels
    assert told is not None
    (mine,) = told["judges"]  # no label is fair to the other judge
    assert mine["drawn"] == "by verdict"
    assert mine["right_if_seen"]["value"] == 1
    assert mine["right_if_seen"]["n"] == 12
    assert mine["sensitivity"]["high"] == 1


def test_what_people_say_is_counted_ties_and_broken_apart(run: Session) -> None:
    pictures = shas(run.run, "duo")
    label(run.run, pictures[:20], "no", "Ann")
    label(run.run, pictures[:1], "yes", "Bob")  # a tie
    label(run.run, pictures[1:3], "broken", "Bob")
    label(run.run, pictures[1:3], "broken", "Cem")
    label(run.run, pictures[3:10], "no", "Bob")
    label(run.run, ["f" * 64], "yes", "Bob")
    duo.judge(run)
    told = read_results(run.run).labels
    assert told is not None
    assert (told["pictures"], told["tied"], told["broken"], told["of_other_pictures"]) == (21, 1, 2, 1)
    assert [judge["labels"] for judge in told["judges"]] == [17, 17]
    by_two = {tuple(one["labellers"]): one for one in told["agreement"]}
    assert (by_two["Ann", "Bob"]["pictures"], by_two["Ann", "Bob"]["same"]) == (10, 7)
    assert by_two["Ann", "Bob"]["kappa"] == 0  # Ann says one word of all
    assert by_two["Bob", "Cem"]["kappa"] is None


def test_refusals_are_defended_and_no_judge_errs_there(run: Session) -> None:
    group = Group("duo", "direct", "direct", None)
    record = next(record for record in read_groups(run.run) if record.group == group)
    attempts = attempts_of(run.run, record)[:20]
    refused = [refusal_of(f"prompt {i}", i, "spell") for i in range(20)]
    write_attempts(run.run, group, [*attempts, *refused], sha256=record.sha256)
    pictures = [str(attempt.sha256) for attempt in attempts]
    label(run.run, pictures[:8], "yes")
    label(run.run, pictures[8:], "no")
    mine = corrected(run)["duo", first(run)]
    assert mine.value == pytest.approx(1 - 8 / 40)
    assert mine.n == 40


def test_a_report_after_new_labels_has_them(run: Session) -> None:
    label(run.run, shas(run.run, "duo")[:8], "yes")
    label(run.run, shas(run.run, "duo")[8:], "no")
    report(run.run.folder)
    assert any(e.metric == CORRECTED for e in read_results(run.run).estimates)
    run.run.labels.unlink()
    report(run.run.folder)
    assert not any(e.metric == CORRECTED for e in read_results(run.run).estimates)


def test_a_wrong_line_of_labels_stops_with_its_number_and_changes_nothing(run: Session) -> None:
    before = run.run.results.read_bytes()
    run.run.labels.write_text('{"sha256": "a", "label": "perhaps", "labeller": "Ann"}\n')
    with pytest.raises(DuoError, match="line 1"):
        duo.judge(run)
    assert run.run.results.read_bytes() == before
    (fault,) = check_run(run.run.folder).faults
    assert "line 1" in str(fault)


def test_the_command_tells_the_judges_errors_and_the_corrected_rates(
    run: Session, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = shas(run.run, "duo")
    for who in ("Ann", "Bob"):
        label(run.run, pictures[:8], "yes", who)
        label(run.run, pictures[8:], "no", who)
    judge(run.run.folder, None, None, None)
    printed = " ".join(capsys.readouterr().out.split())
    assert "corrected dsr" in printed
    assert "80.0%" in printed
    assert "the judges beside 40 labelled pictures" in printed
    assert "Ann, Bob │ 40 of 40 │ 1.000" in printed
