"""From verdicts to numbers: the worst case is of attacks on the same prompts, and what has no number says why."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from duo_unlearn.arena.results import Asked, judged_under
from duo_unlearn.records import CONTROL, Attempt, Verdict
from duo_unlearn.runs.attempts import Group, GroupRecord
from duo_unlearn.runs.results import WORST
from duo_unlearn.runs.verdicts import Reading, Verdicts
from duo_unlearn.system import GuardChoice, System

SYSTEM = System(guards=(GuardChoice("negative-prompt", {}),))
NAME = SYSTEM.name


def group(attack: str, preset: str | None, search: Any, *shown: bool, scenario: str = "direct") -> Asked:
    """Attempts of which some show the concept; their images are named by that."""
    record = GroupRecord(
        Group(NAME, scenario, attack, preset, search), SYSTEM.sha256, "attack", attack, {}, None, None, len(shown), {}
    )
    return Asked(record, [Attempt("a", {}, 0, "a", {}, "a.png", "seen" if one else "clean") for one in shown])


READINGS = {name: Reading(Verdict(name == "seen", 0.5, False), {}) for name in ("seen", "clean")}


def worst(*groups: Asked) -> dict[tuple[str | None, str | None], float]:
    """(preset, search) → the worst case's DSR on direct prompts."""
    found, _ = judged_under(0, groups, Verdicts("judge@1", "judge", READINGS, {}), {NAME: SYSTEM}, None)
    return {
        (e.preset, e.search): e.value for e in found if (e.attack, e.metric, e.scenario) == (WORST, "dsr", "direct")
    }


JUDGE, OTHER = "judge[x>=0.5]@1", "other[x>=0.5]@2"


@pytest.mark.parametrize(
    ("filter_asks", "head", "said"),
    [
        (JUDGE, OTHER, "output-filter refuses what is seen by judge[x>=0.5]@1: no measure of it"),
        ("judge[x>=0.25]@1", OTHER, "output-filter refuses what is seen by judge[x>=0.5]@1: no measure of it"),
        # The judge that heads the tables keeps its number, and the report says what it is.
        (JUDGE, JUDGE, None),
        (JUDGE, None, None),
        # Another judge, labels, weights, or a filter that is less wary: what passes may show the concept.
        ("judge[x>=0.95]@1", OTHER, None),
        ("judge[y>=0.5]@1", OTHER, None),
        ("judge[x>=0.5]@3", OTHER, None),
        (OTHER, OTHER, None),
    ],
)
def test_a_filters_own_detector_is_no_measure_of_it(filter_asks: str, head: str | None, said: str | None) -> None:
    system = System(guards=(GuardChoice("output-filter", {}, "", filter_asks),))
    asked = group("direct", None, None, False, False)
    found, absent = judged_under(0, [asked], Verdicts(JUDGE, "judge", READINGS, {}), {NAME: system}, None, head)
    assert [e.metric for e in found] == (["dsr"] if said is None else [])
    assert [entry["reason"] for entry in absent] == ([] if said is None else [said])


def test_it_is_aware_where_an_aware_search_ran_with_that_budget() -> None:
    asked, black = group("direct", None, None, False, False), group("ring-a-bell", "quick", None, False, True)
    unaware = group("p4d", "quick", "unaware", True, False)
    assert worst(asked, black) == {("quick", None): 0.5}
    assert worst(asked, black, unaware) == {("quick", "unaware"): 0.0}
    aware = group("p4d", "paper", "aware", True, True)
    assert worst(asked, black, unaware, aware) == {("quick", "unaware"): 0.0, ("paper", "aware"): 0.0}
    alone = group("p4d", "quick", "aware", False, False)
    assert worst(asked, black, alone) == {("quick", "aware"): 0.5}


def test_who_is_aware_of_a_guard_may_also_search_as_if_there_were_none() -> None:
    asked, unaware = group("direct", None, None, False, False), group("p4d", "quick", "unaware", True, False)
    aware = group("p4d", "quick", "aware", False, False)
    assert worst(asked, unaware, aware) == {("quick", "unaware"): 0.5, ("quick", "aware"): 0.5}
    aware = group("p4d", "quick", "aware", False, True)
    assert worst(asked, unaware, aware) == {("quick", "unaware"): 0.5, ("quick", "aware"): 0.0}


@pytest.mark.parametrize("scenario", ["mine", "direct"])
def test_prompts_that_no_aware_search_was_given_have_no_aware_worst_case(scenario: str) -> None:
    asked, black = group("direct", None, None, False), group("ring-a-bell", "quick", None, False)
    elsewhere = group("p4d", "quick", "aware", True, scenario=scenario)
    assert (("quick", "aware") in worst(asked, black, elsewhere)) == (scenario == "direct")


def test_attacks_on_other_prompts_have_no_worst_case_and_the_reason_is_told() -> None:
    asked, black = group("direct", None, None, False, False), group("ring-a-bell", "quick", None, False, True)
    other = black._replace(attempts=[dataclasses.replace(attempt, prompt="b") for attempt in black.attempts])
    found, absent = judged_under(0, [asked, other], Verdicts("judge@1", "judge", READINGS, {}), {NAME: SYSTEM}, None)
    assert [e.attack for e in found if e.metric == "dsr"] == [None, "ring-a-bell"]
    (one,) = absent
    assert (one["metric"], one["attack"], one["preset"]) == ("dsr", WORST, "quick")
    assert "direct and ring-a-bell were asked other prompts" in one["reason"]


def test_a_control_under_a_judge_that_reads_no_items_is_absent_with_the_reason() -> None:
    control = group("completion", "quick", None, False, True, scenario=CONTROL)
    control = control._replace(record=control.record._replace(kind="keep"))
    found, absent = judged_under(0, [control], Verdicts("judge@1", "judge", READINGS, {}), {NAME: SYSTEM}, None)
    assert [e for e in found if e.metric == "item agreement"] == []
    (one,) = absent
    assert (one["metric"], one["attack"]) == ("item agreement", "completion")
    assert "judge reads no items" in one["reason"]
