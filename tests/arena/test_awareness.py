"""Searches that are to be aware of a guard which no search sees: there is no such number, and why is told."""

from __future__ import annotations

import json

import pytest

import duo_unlearn as duo
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.runs.attempts import read_group, write_group
from duo_unlearn.session import Session

from .small_run import make_run

SMALL = {"p4d": {"steps": 1, "check_every": 1, "tokens": 2}}
SYSTEM = "duo+output-filter"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return make_run(tmp_path_factory.mktemp("aware"))


@pytest.fixture(scope="module")
def run(whole: Session) -> Session:
    """A run whose guarded system was attacked both ways."""
    for aware in (False, True):
        duo.attack(whole, ["p4d"], systems=[SYSTEM], prompts=1, aware=aware, budgets=SMALL)
    return whole


@pytest.mark.slow
def test_an_aware_number_is_not_given_where_no_search_sees_the_guard(run: Session) -> None:
    states, results = duo.attack(run, ["p4d"], systems=[SYSTEM], prompts=1, aware=True, budgets=SMALL)
    said = next(state.reason for state in states if state.group.system == SYSTEM)
    assert said is not None
    assert "aware of output-filter" in said
    told = {e.search for e in results.estimates if (e.attack, e.system) == ("p4d", SYSTEM)}
    assert told == {"unaware"}
    assert said in {entry["reason"] for entry in results.absent if entry["system"] == SYSTEM}
    assert not (run.run.attempts / SYSTEM / "direct" / "p4d.custom.aware" / "0000.json").exists()
    page = duo.report(run.run.folder).read_text()
    assert f"no search here can see the guards of {SYSTEM}" in page


@pytest.mark.slow
def test_numbers_of_before_that_were_called_aware_are_told_no_more(run: Session) -> None:
    folder = run.run.attempts / SYSTEM / "direct"
    unaware = read_group(folder / "p4d.custom.unaware" / "group.json")
    aware = read_group(folder / "p4d.custom.aware" / "group.json")
    assert unaware is not None
    assert aware is not None
    write_group(run.run, unaware._replace(group=aware.group))
    results = duo.judge(run)
    assert not [e for e in results.estimates if e.search == "aware"]
    told = [entry["reason"] for entry in results.absent if entry["system"] == SYSTEM]
    assert any("aware of output-filter" in reason for reason in told)
    write_group(run.run, aware)


@pytest.mark.slow
def test_a_search_is_aware_of_a_guard_or_says_that_it_is_not(run: Session) -> None:
    system = "duo+negative-prompt"
    for aware in (False, True):
        _, results = duo.attack(run, ["p4d"], systems=[system], prompts=1, aware=aware, budgets=SMALL)
    mine = [e for e in results.estimates if e.attack == "p4d" and e.system == system]
    assert {e.search for e in mine} == {"unaware", "aware"}
    assert {e.search for e in results.estimates if e.attack == "p4d" and e.system == "original"} == {None}
    losses = {
        name: json.loads((run.run.attempts / system / "direct" / f"p4d.custom.{name}" / "found-0000.json").read_text())
        for name in ("unaware", "aware")
    }
    facts = [[f["facts"]["loss"] for f in found["findings"]] for found in losses.values()]
    assert facts[0] != facts[1]  # the guard is inside one of the searches


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("output-filter", "output-filter"),
        ("output-filter+pno", "output-filter or pno"),
        ("safree", None),
        ("negative-prompt+output-filter", None),
        ("sld", None),
        ("spell", None),
        ("duo", None),
    ],
)
def test_a_system_says_whether_a_search_can_be_aware_of_it(whole: Session, name: str, hidden: str | None) -> None:
    system = whole.system(name)
    reason = system.why_not_aware()
    assert (reason is None) == (hidden is None)
    assert hidden is None or f"aware of {hidden}" in str(reason)
    assert system.seen == {guard.name: GUARDS.get(guard.name).seen for guard in system.guards}
