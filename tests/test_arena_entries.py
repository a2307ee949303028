"""Two pages of one system as one entry: a worst case stays where it is of every attack that the entry has."""

from __future__ import annotations

from typing import Any

import pytest
from benchmarks.arena_entries import merged

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
