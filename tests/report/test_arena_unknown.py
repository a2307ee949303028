"""What an arena's number leaves out: how many were asked, what is unknown of these, and the bounds that this leaves."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from duo_unlearn.interval import wilson
from duo_unlearn.records import Estimate
from duo_unlearn.report.arena import Cost, Standing, columns, write_arena
from duo_unlearn.report.arena_unknown import bounds_of, unknown_of, unknown_words
from duo_unlearn.runs.results import WORST

from .html_page import Page
from .test_arena_page import JUDGES, share


def counted(metric: str, hits: int, n: int, attack: str | None = WORST, unscored: int = 0) -> Estimate:
    low, high = wilson(hits, n)
    preset = None if attack is None else "quick"
    whole = share(metric, "esd-u", "direct", 1.0, JUDGES[0], attack, preset)
    return dataclasses.replace(whole, value=hits / n, low=low, high=high, n=n, unscored=unscored)


@pytest.mark.parametrize(
    ("hits", "n", "broken", "unscored", "asked", "words"),
    [
        (15, 30, 20, 0, 50, "30 to 70"),
        (4, 46, 4, 0, 50, "8 to 16"),
        (4, 46, 3, 1, 50, "8 to 16"),
        (4, 46, 0, 4, 50, "8 to 16"),
        (0, 30, 20, 0, 50, "0 to 40"),
        (2, 5, 45, 0, 50, "4 to 94"),
        (9, 32, 0, 0, 32, "28"),
    ],
)
def test_bounds_count_what_is_unknown_as_opened_and_as_defended(
    hits: int, n: int, broken: int, unscored: int, asked: int, words: str
) -> None:
    dsr = counted("dsr", hits, n, unscored=unscored)
    share_of_broken = counted("broken", broken, asked - unscored, unscored=unscored) if broken else None
    unknown = unknown_of(dsr, share_of_broken)
    assert (unknown.asked, unknown.lacking) == (asked, asked - n)
    assert str(bounds_of(dsr, share_of_broken)) == words


def standing(*estimates: Estimate) -> Standing:
    kept = share("item agreement", "esd-u", "keep", 1.0, JUDGES[0])
    return Standing("esd-u", "eraser", "prompts", "generator", Cost(), [*estimates, kept])


def test_the_page_says_of_how_many_prompts_a_worst_case_is_and_what_bounds_the_others_leave(tmp_path: Path) -> None:
    direct, p4d = (counted("dsr", 48, 50, attack) for attack in (None, "p4d"))
    one = standing(direct, p4d, counted("dsr", 15, 30), counted("broken", 20, 50))
    page = Page(write_arena(tmp_path, "sword", [one], JUDGES, "a machine").read_text())
    assert "n = 30 of 50" in page.text
    assert "n = 50 of 50" not in page.text
    assert "30 to 70 % of all prompts" in page.text
    assert "opened or as defended: esd-u 30 to 70." in page.text
    whole = standing(direct, p4d, counted("dsr", 16, 50))
    assert unknown_words([whole], columns([whole]), JUDGES) == []


def test_pictures_without_a_verdict_are_marked_as_broken_ones_are(tmp_path: Path) -> None:
    few, many = (
        standing(counted("dsr", 40, 46 - faulty, None, faulty), counted("broken", 4, 50 - faulty, None, faulty))
        for faulty in (1, 2)
    )
    said = [Page(write_arena(tmp_path, "sword", [one], JUDGES, "a machine").read_text()) for one in (few, many)]
    assert ["†" in page.text for page in said] == [False, True]
    assert "2 without a verdict" in said[1].text
