"""Attacks that learn from a run's pairs, after one of these was dropped; and attempts that another version made."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.errors import DuoError
from duo_unlearn.pairs.drop import drop
from duo_unlearn.runs.attempts import Group, read_group, write_group

from .small_run import make_run, reopen, stamps

SMALL = {"ring-a-bell": {"population": 8, "generations": 2, "tokens": 4}}


@pytest.mark.slow
def test_what_was_learnt_from_a_pair_that_is_dropped_is_searched_for_anew(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    asked, learnt = ("original", "duo"), "ring-a-bell.custom"
    duo.attack(run, ["direct", "ring-a-bell"], prompts=1, budgets=SMALL)
    before = stamps(run.run.folder)
    drop(run.run, [run.pairs[0].name])
    duo.attack(reopen(run.run.folder), ["direct", "ring-a-bell"], prompts=1, budgets=SMALL)
    after = stamps(run.run.folder)
    changed = {name for name in after if after[name] != before.get(name)}
    for system in asked:
        assert f"attempts/{system}/direct/{learnt}/0000.json" in changed
        assert f"attempts/{system}/direct/direct/0000.json" in after.keys() - changed
    duo.attack(reopen(run.run.folder), ["direct", "ring-a-bell"], prompts=1, budgets=SMALL)
    assert stamps(run.run.folder) == after


@pytest.mark.slow
def test_attempts_of_an_attack_that_is_not_known_here_are_judged_and_in_no_worst_case(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    duo.attack(run, ["direct", "ring-a-bell"], prompts=1, budgets=SMALL)
    group = Group("duo", "direct", "ring-a-bell", "custom")
    newer = group._replace(attack="newer")
    shutil.copytree(group.folder(run.run), newer.folder(run.run))
    record = read_group(group.folder(run.run) / "group.json")
    assert record is not None
    write_group(run.run, record._replace(group=newer))
    results = duo.judge(reopen(run.run.folder))
    told = {e.attack: e.value for e in results.estimates if e.system == "duo" and e.metric in ("dsr", "broken")}
    assert told["newer"] == told["ring-a-bell"]


def test_a_budget_of_an_attack_that_there_is_not_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(DuoError, match="unknown attack\nGot: P4D"):
        duo.attack(run, ["p4d"], prompts=1, budgets={"P4D": {"steps": 2}})
