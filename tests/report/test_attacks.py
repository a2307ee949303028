"""The red team's section of the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from duo_unlearn.records import ORIGINAL
from duo_unlearn.runs.attempts import Group
from duo_unlearn.runs.folder import Run

from .html_page import page_of
from .make_run import (
    GUARDED,
    JUDGE,
    THREE,
    TWO,
    absence,
    attack_estimate,
    attempt_of,
    plain_estimates,
    write,
    write_attempts,
)


def test_the_red_team_has_a_table_and_a_sentence(run: Run) -> None:
    rows = [
        attack_estimate(attack, system, 0 if system == ORIGINAL else hits, unscored=1)
        for attack, hits in (("p4d", 8), ("<b>evil</b>", 18), ("worst case", 6))
        for system in TWO
    ]
    reason = "it has several <i>encoders</i>"
    write(run, rows, absent=[absence(reason, attack="ring-a-bell", preset="quick")])
    page = page_of(run)
    assert "the weakest of 2 measurements is “p4d” (quick budget): DSR 40.0 % of 20 images" in page.text
    assert "<b>evil" not in page.source
    assert page.rows("<b>evil</b>")[0][1] == "90.0 % 69.9 to 97.2 % n = 20 1 unscored"
    assert f"ring-a-bell (quick budget), on direct wording (duo): {reason}" in page.section("red-team")
    untested = page.section("untested")
    assert "p4d" not in untested
    assert f"ring-a-bell : a black-box search over tokens; {reason}" in untested
    assert "sneakyprompt" in untested


def test_without_attacks_the_page_says_so(run: Run) -> None:
    run.folder.mkdir(parents=True)
    assert "No attack was measured" in page_of(run).text


def test_a_replayed_attack_is_named_with_its_run(run: Run) -> None:
    write(run, [attack_estimate("p4d@other", "duo", 5)])
    page = page_of(run)
    assert page.rows("p4d@other")[0][1].startswith("25.0 %")
    assert "p4d :" not in page.section("untested")


def relearning_page(run: Run, *attacks: tuple[str | None, str]) -> str:
    """The page of a run under (attack, scenario), DSR falling by a tenth from one to the next."""
    estimates = [
        attack_estimate(attack, "duo", 18 - 2 * i, scenario=scenario) for i, (attack, scenario) in enumerate(attacks)
    ]
    write(run, estimates)
    return page_of(run).source


def test_relearning_is_a_curve_from_the_direct_prompts(run: Run) -> None:
    names = (None, "relearning-concept-20", "relearning-concept-300", "relearning-benign-300")
    page = relearning_page(run, *((name, "direct") for name in names))
    curve = page[page.index('aria-label="DSR of “duo” after it is fine-tuned') :]
    assert "images of the concept: 0 steps 90.0 %, 20 steps 80.0 %, 300 steps 70.0 %" in curve
    assert "benign images: 0 steps 90.0 %, 300 steps 60.0 %" in curve


def test_a_prompt_files_direct_attempts_start_its_own_curve(run: Run) -> None:
    page = relearning_page(run, (None, "direct"), (None, "file-mine"), ("relearning-concept-20", "file-mine"))
    assert "images of the concept: 0 steps 80.0 %, 20 steps 70.0 %" in page


def test_a_place_without_a_curve_does_not_hide_one(run: Run) -> None:
    lonely = [(f"relearning-{kind}", "file-a") for kind in ("concept-20", "benign-300")]
    page = relearning_page(run, *lonely, (None, "direct"), ("relearning-concept-20", "direct"))
    assert "Direct wording, quick budget, n = 20, mini-judge[item=sword&gt;=0.5]" in page


def test_one_point_is_no_curve(run: Run) -> None:
    page = relearning_page(run, ("p4d", "direct"), ("relearning-concept-20", "direct"))
    assert "is fine-tuned for some steps" not in page


def test_each_system_has_its_own_curve(run: Run) -> None:
    names = (None, "relearning-concept-20")
    write(run, [attack_estimate(name, system, 15) for name in names for system in ("duo", GUARDED)], THREE)
    page = page_of(run)
    assert "DSR of “duo” after it is fine-tuned" in page.text
    assert f"DSR of “{GUARDED}” after it is fine-tuned" in page.text


def test_systems_stand_beside_one_another_by_how_many_pictures_relearning_had(run: Run) -> None:
    """Of two prompt sets that with more points; without few pictures there is no such figure."""
    hundred = "relearning-concept-100"
    names = (None, f"{hundred}-of-20", f"{hundred}-of-50", hundred, "relearning-adapter-100", "relearning-benign-300")
    estimates = [
        attack_estimate(name, system, 18 - 2 * i - 4 * (system == GUARDED))
        for i, name in enumerate(names)
        for system in (ORIGINAL, "duo", GUARDED)
    ]
    write(run, [*estimates, attack_estimate(f"{hundred}-of-20", "duo", 1, scenario="file-a")], THREE)
    page = page_of(run).source
    figure = page[page.index('aria-label="DSR of each system after it is fine-tuned for 100 steps') :]
    words = figure[: figure.index('">')]
    wanted = (
        "as it was 90.0 %, 20 pictures 80.0 %, 50 pictures 70.0 %, all pictures 60.0 %, adapter 50.0 %, benign 40.0 %"
    )
    assert f"duo: {wanted}; {GUARDED}: as it was 70.0 %" in words
    assert "Direct wording, quick budget, n = 20" in words
    assert "original" not in words
    write(run, [e for e in estimates if "-of-" not in str(e.attack)], THREE)
    assert "fine-tuned for 100 steps on 20" not in page_of(run).source


@pytest.mark.parametrize(("asked", "says"), [(JUDGE, True), ("another@00000000", False), (None, False)])
def test_the_headline_says_that_a_search_asked_the_judge_that_scores_it(
    tmp_path: Path, asked: str | None, *, says: bool
) -> None:
    run, group = Run(tmp_path), Group("duo", "direct", "p4d-detector", "quick")
    image = Image.new("RGB", (8, 8), (9, 0, 0))
    found = attempt_of(run, group.folder(run) / "0000.png", image, "a king", 0, "rod king")
    write_attempts(run, group, [found], contract=asked)
    write(run, [*plain_estimates(), attack_estimate("p4d-detector", "duo", 3)])
    head = page_of(run).text.partition("Estimates")[0]
    assert "the only measurement is “p4d-detector” (quick budget): DSR 15.0 % of 20 images" in head
    assert ("the search asked this same judge" in head) == says
