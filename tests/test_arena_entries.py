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


def entry(*attacks: str | None, sha256: str = "a") -> dict[str, Any]:
    return {"system": "duo", "estimates": [estimate(attack, sha256) for attack in attacks]}


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
    ],
)
def test_the_worst_case_is_of_all_attacks_or_none(old: Any, new: Any, both: set[str | None]) -> None:
    assert {e["attack"] for e in merged(entry(*old), entry(*new))["estimates"]} == both


def test_what_another_edit_had_goes() -> None:
    found = merged(entry(None, "p4d", sha256="b"), entry(None))["estimates"]
    assert [(e["attack"], e["sha256"]) for e in found] == [(None, "a")]
