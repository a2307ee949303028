"""The export of a run in which an attack was stopped half-way: what is there of it has no number, and no evidence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.arena.verify import check_numbers
from duo_unlearn.export.evidence import measurement_of
from duo_unlearn.runs.attempts import Group, read_group, write_group
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.labels import Label, append_label
from duo_unlearn.runs.results import read_results

from ..report.make_run import SYSTEMS, add_images, add_record, add_results

WHY = "10 of 20 attempts are there: `duo evaluate` or `duo attack` again"


def lack_half(run: Run, group: Group) -> None:
    """As a kill leaves a group of 20 prompts, of whose two parts one is there."""
    known = read_group(group.folder(run) / "group.json")
    assert known is not None
    write_group(run, known._replace(size=20, parts={**known.parts, "0010": "of the other part"}))


def test_what_is_there_of_a_group_is_no_evidence_and_no_pool_of_labels(run: Run) -> None:
    add_images(run, count=10)
    add_results(run)
    add_record(run)
    append_label(run, Label("0" * 64, "yes", "Ann"))
    systems = list(SYSTEMS.values())[:2]
    whole = measurement_of(run, read_results(run), systems)
    group = Group("duo", "direct", "direct", None)
    lack_half(run, group)
    found = measurement_of(run, read_results(run), systems)
    told = {(one.asked.system, one.asked.scenario): (one.asked.reason, len(one.attempts)) for one in found.groups}
    assert told["duo", "direct"] == (WHY, 0)
    assert told["original", "direct"] == (None, 10)
    assert len(whole.groups) == len(found.groups)
    assert set(found.pool) < set(whole.pool)


@pytest.mark.slow
def test_it_is_exported_once_judged_again(measured: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(measured, tmp_path / "run"))
    session = duo.open_run(place, quiet=True)
    lack_half(session.run, Group("duo", "direct", "p4d", "quick"))
    duo.judge(session)
    folder = duo.export(place, tmp_path / "out").folder
    check_numbers(folder)
    assert WHY in (folder / "README.md").read_text()
