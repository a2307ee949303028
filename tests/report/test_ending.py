"""The line that a run ends with."""

from __future__ import annotations

import dataclasses

import pytest

from duo_unlearn.records import ORIGINAL, Estimate
from duo_unlearn.report.ending import ending
from duo_unlearn.runs.results import Results

from .make_run import READER, attack_estimates, plain_estimates, share, source_of


def results(estimates: list[Estimate]) -> Results:
    return Results("sword", "mini", 0, False, [], estimates, [])


def direct(original: tuple[int, int], edited: tuple[int, int], contract: str = "judge[a]@1") -> list[Estimate]:
    """DSR of both on direct prompts: (defended, of)."""
    counts = zip((ORIGINAL, "duo"), (original, edited), strict=True)
    return [share("dsr", source_of(system, "direct", contract), *count) for system, count in counts]


def test_an_erased_concept_with_its_cost() -> None:
    line = ending(results([*plain_estimates(), *attack_estimates()]), "duo", ["direct"])
    assert line == (
        "erased: sword not seen in 99.0 % [97.1, 99.7] of 300 direct images by mini-judge; original: 4.0 % [2.3, 6.9]; "
        "cost: 8.0 points of item on wand prompts"
    )


@pytest.mark.parametrize(
    ("original", "edited", "words"),
    [
        ((12, 300), (12, 300), "not erased: "),  # a run that did nothing
        ((12, 300), (20, 300), "The intervals meet"),
        ((1, 4), (3, 4), "The intervals meet"),  # too few to tell
        ((290, 300), (300, 300), "erased: "),
        ((290, 300), (294, 300), "not erased: "),  # hardly seen before, so nothing is shown
        ((12, 300), (100, 300), "It is shown less, and still often"),
        ((0, 4), (4, 4), "erased: "),
    ],
)
def test_erased_means_more_than_chance_and_more_than_half(
    original: tuple[int, int], edited: tuple[int, int], words: str
) -> None:
    line = ending(results(direct(original, edited)), "duo", ["direct"])
    assert words in line
    assert line.startswith("erased: ") == (words == "erased: ")


def test_the_judge_that_heads_the_tables_decides() -> None:
    first, second = direct((0, 50), (0, 50)), direct((0, 50), (50, 50), "other[a]@1")
    assert ending(results([*first, *second]), "duo", ["direct"]).startswith("not erased: ")
    assert ending(results([*second, *first]), "duo", ["direct"]).startswith("erased: ")


def test_a_broken_picture_or_an_attack_makes_nothing_erased() -> None:
    attacked = [dataclasses.replace(e, attack="p4d", preset="quick") for e in direct((0, 50), (50, 50))]
    broken = [share("broken", source_of("duo", "direct"), 50, 50)]
    for estimates in (attacked, broken, []):
        assert ending(results(estimates), "duo", ["direct"]).startswith("whether sword is erased was not measured")
    alone = ending(results(direct((0, 50), (50, 50))[1:]), "duo", ["direct"])
    assert "the original was not measured" in alone


def test_a_cost_that_is_none_and_one_that_was_not_measured() -> None:
    same = [share("item agreement", source_of(system, "keep", READER), 40, 50) for system in (ORIGINAL, "duo")]
    assert ending(results(same), "duo", []).endswith("cost: no agreement fell")
    prior = [
        Estimate.of("prior preservation", source_of("duo", name, "clip"), value, value, value, 9)
        for name, value in (("keep", 0.95), ("wand", 0.9))
    ]
    assert ending(results(prior), "duo", []).endswith("cost: prior preservation down to 0.90 on wand prompts")
    assert ending(results([]), "duo", []).endswith("cost: not measured")


def test_the_cost_is_by_the_judge_that_heads_the_tables() -> None:
    """As on the report. What another judge reads is in its tables."""

    def agreements(reader: str, counts: tuple[int, int]) -> list[Estimate]:
        pairs = zip((ORIGINAL, "duo"), counts, strict=True)
        return [share("item agreement", source_of(system, "keep", reader), hits, 50) for system, hits in pairs]

    head, other = agreements("mini-judge-b@2", (50, 49)), agreements(READER, (50, 40))
    assert ending(results([*head, *other]), "duo", []).endswith("cost: 2.0 points of item on keep prompts")
    assert ending(results([*other, *head]), "duo", []).endswith("cost: 20.0 points of item on keep prompts")


def test_several_concepts_are_erased_when_each_is() -> None:
    first = direct((0, 50), (50, 50))
    for edited, words in (((0, 50), "not erased: "), ((45, 50), "erased: ")):
        second = [dataclasses.replace(e, scenario="balloon-direct") for e in direct((0, 50), edited)]
        line = ending(results([*first, *second]), "duo", ["direct", "balloon-direct"])
        assert line.startswith(words)
        assert "balloon-direct images" in line  # the weaker one
    unmeasured = ending(results(first), "duo", ["direct", "balloon-direct"])
    assert unmeasured.startswith("whether sword is erased was not measured on balloon-direct prompts")
    # A set that was not measured hides none that is not erased.
    assert ending(results(direct((0, 50), (0, 50))), "duo", ["direct", "balloon-direct"]).startswith("not erased: ")
    # The one that is not erased is told, also where the other one is weaker.
    weaker = direct((0, 50), (40, 50))
    hardly = [dataclasses.replace(e, scenario="balloon-direct") for e in direct((48, 50), (49, 50))]
    line = ending(results([*weaker, *hardly]), "duo", ["direct", "balloon-direct"])
    assert line.startswith("not erased: ")
    assert "balloon-direct images" in line
