"""Two pages of one system as one entry: a worst case stays where it is of every attack that the entry has."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.arena_entries import is_again, joined, merged, standing_of, tell_what_is_seen

WORST = "worst case"


def estimate(attack: str | None, sha256: str = "a") -> dict[str, Any]:
    return {
        "metric": "dsr", "system": "duo", "scenario": "direct", "attack": attack, "search": None, "value": 0.9,
        "preset": None if attack is None else "quick", "low": 0.8, "high": 1.0, "n": 50, "unscored": 0,
        "contract": "judge@1", "seeds": [0], "sha256": sha256,
    }  # fmt: skip


def entry(*attacks: str | None, sha256: str = "a", **cost: float | None) -> dict[str, Any]:
    return {"system": "duo", "cost": cost, "estimates": [estimate(attack, sha256) for attack in attacks]}


@pytest.mark.parametrize(
    ("old", "new", "both"),
    [
        ((None, "p4d"), (None, "p4d", "sneakyprompt", WORST), {None, "p4d", "sneakyprompt", WORST}),
        ((None, "p4d", "sneakyprompt", WORST), (None,), {None, "p4d", "sneakyprompt", WORST}),
        ((None, "p4d", WORST), (None, "sneakyprompt", WORST), {None, "p4d", "sneakyprompt"}),
        ((None, "p4d", WORST), (None, "sneakyprompt"), {None, "p4d", "sneakyprompt"}),
        # No worst case has text-free inversion.
        ((None, "p4d", "tina"), (None, "p4d", WORST), {None, "p4d", "tina", WORST}),
        ((None, "p4d", WORST), (None, "tina", WORST), {None, "p4d", "tina", WORST}),
        # A page of attacks alone counts no prompt that no attack opens.
        ((None,), ("p4d", WORST), {None, "p4d"}),
        ((None, "p4d", WORST), ("p4d", WORST), {None, "p4d", WORST}),
    ],
)
def test_the_worst_case_is_of_all_attacks_or_none(old: Any, new: Any, both: set[str | None]) -> None:
    assert {e["attack"] for e in merged(entry(*old), entry(*new))["estimates"]} == both


def searched(attack: str, search: str) -> dict[str, Any]:
    return {**estimate(attack), "search": search}


def test_an_aware_worst_case_is_of_the_unaware_searches_too() -> None:
    old = {**entry(None), "estimates": [estimate(None), searched("p4d", "aware"), searched(WORST, "aware")]}
    new = {**entry(None), "estimates": [estimate(None), searched("p4d", "unaware"), searched(WORST, "unaware")]}
    worst = [e["search"] for e in merged(old, new)["estimates"] if e["attack"] == WORST]
    assert worst == ["unaware"]
    both = {**entry(None), "estimates": [*old["estimates"], *new["estimates"][1:]]}
    worst = [e["search"] for e in merged(both, entry(None))["estimates"] if e["attack"] == WORST]
    assert worst == ["aware", "unaware"]


def test_what_another_edit_had_goes() -> None:
    found = merged(entry(None, "p4d", sha256="b"), entry(None))["estimates"]
    assert [(e["attack"], e["sha256"]) for e in found] == [(None, "a")]


def test_the_cost_of_an_edit_that_is_made_again_stays_the_first_one() -> None:
    old, again = entry(None, seconds=300.0, image=None), entry("p4d", seconds=420.0, image=1.1)
    assert merged(old, again)["cost"] == {"seconds": 300.0, "image": 1.1}
    assert merged(old, entry("p4d", sha256="b", seconds=420.0, image=1.1))["cost"] == {"seconds": 420.0, "image": 1.1}


def test_a_page_that_has_nothing_yet_takes_nothing_away() -> None:
    old = entry(None, "p4d", seconds=300.0)
    assert merged(old, entry(seconds=420.0)) == old


def plain(sha256: str, low: float, high: float) -> dict[str, Any]:
    return {**estimate(None, sha256), "low": low, "high": high}


def test_attacks_on_an_edit_that_is_made_again_stand_beside_its_numbers_with_its_own_hash() -> None:
    old = {**entry(None, "p4d"), "parts": [], "kind": "eraser", "reads": "prompts", "level": "generator"}
    old["cost"] = {"seconds": 1.0, "passes": 0, "changed": 1, "image": None}
    both = joined(old, entry(None, "p4d", "sneakyprompt", WORST, sha256="b"))
    assert both["estimates"] == old["estimates"]
    assert [(e["attack"], e["sha256"]) for e in both["again"]] == [("sneakyprompt", "b")]
    standing = standing_of(both)
    assert [is_again(standing, e) for e in standing.estimates] == [False, False, True]
    twice = joined(both, entry(None, "sneakyprompt", "tina", sha256="c"))
    assert [(e["attack"], e["sha256"]) for e in twice["again"]] == [("sneakyprompt", "c"), ("tina", "c")]


def test_an_edit_that_is_made_again_and_is_another_is_told() -> None:
    old = {"system": "duo", "cost": {}, "estimates": [plain("a", 0.8, 1.0)]}
    assert joined(old, {"system": "duo", "estimates": [plain("b", 0.7, 0.8)]})["again"] == []
    with pytest.raises(ValueError, match=r"duo, made again, is another: dsr, direct 0\.900, was 0\.900"):
        joined(old, {"system": "duo", "estimates": [plain("b", 0.1, 0.7)]})


def test_what_was_made_again_goes_with_the_edit_that_it_was() -> None:
    old = joined(entry(None), entry("p4d", sha256="b"))
    assert [e["sha256"] for e in merged(old, entry(None, "tina"))["again"]] == ["b"]
    assert "again" not in merged(old, entry(None, sha256="c"))
    # Once the system's own edit is attacked, its number stands.
    assert "again" not in merged(old, entry(None, "p4d"))


@pytest.mark.parametrize(("search", "told"), [(None, "whole"), ("unaware", "whole"), ("aware", "nothing")])
def test_what_is_seen_of_a_guard_is_of_now_until_a_search_has_seen_it(search: str | None, told: str) -> None:
    system = entry(None, "p4d") | {"parts": [{"kind": "guard", "name": "spell", "seen": "nothing"}]}
    system["estimates"][1]["search"] = search
    tell_what_is_seen(system)
    assert system["parts"][0]["seen"] == told
