"""The first screen: what is gone, what it cost and what opens it, and the first pictures before, after and attacked."""

from __future__ import annotations

import pytest
from PIL import Image

from duo_unlearn.records import Estimate
from duo_unlearn.report.page import write_report
from duo_unlearn.runs.attempts import Group
from duo_unlearn.runs.folder import Run

from .html_page import Page, page_of
from .make_run import (
    JUDGE,
    NEIGHBOURS,
    READER,
    absence,
    add_results,
    attack_estimate,
    attempt_of,
    plain_estimates,
    share,
    source_of,
    write,
    write_attempts,
)  # fmt: skip


def tile(page_text: str, question: str, following: str) -> str:
    """The words of a tile, from its question to what follows it."""
    return page_text.partition(f" {question} ")[2].partition(f" {following} ")[0]


def add_pictures(run: Run, attack: str | None, prompts: int, systems: tuple[str, ...] = ("original", "duo")) -> None:
    """Attempts on direct prompts, a picture each of its own grey."""
    for number, system in enumerate(systems):
        group = Group(system, "direct", attack or "direct", "quick" if attack else None)
        attempts = []
        for i in range(prompts):
            grey = 10 * i + number + (100 if attack else 0)
            path = group.folder(run) / f"{i:04}.png"
            attempts.append(attempt_of(run, path, Image.new("L", (8, 8), grey).convert("RGB"), f"king {i}", i))
        write_attempts(run, group, attempts)


def test_three_answers_with_what_they_rest_on(full_page: Page) -> None:
    text = full_page.text
    gone = "96.3 % of images show no sword under indirect wording, the worst of 3 prompt sets"
    assert f"{gone}: 95 % interval 93.6 to 97.9 %, n = 300, by mini-judge; original 5.3 %" in tile(
        text, "Gone?", "Cost"
    )
    cost = f"item as asked, wand prompts, the largest fall of {4 + 2 * len(NEIGHBOURS)}: 97.3 % → 89.3 % (n = 150)"
    assert tile(text, "Cost", "What opens it") == f"−8.0 points {cost}"


def test_the_weakest_attack_and_the_weakest_that_leaves_the_weights_alone(run: Run) -> None:
    scores = [attack_estimate(name, "duo", n) for name, n in (("p4d", 8), ("relearning-concept-300", 3))]
    removal = attack_estimate("edit-removal", "duo", 0)  # it shows the original again, and opens nothing
    write(run, [*plain_estimates(), *scores, removal])
    opened = page_of(run).text.partition(" What opens it ")[2]
    title = "Relearning, 300 steps on concept images"
    assert opened.startswith(f"15.0 % of images still show none under {title} (quick budget), the weakest of 2")
    assert "; with the weights left alone, 40.0 % under P4D, free prompt (quick budget)" in opened


def test_what_nobody_attacked_or_measured_is_a_warning(run: Run) -> None:
    add_results(run)
    page = page_of(run)
    assert "Not attacked yet duo attack RUN runs the red team" in page.text
    assert len(page.classed("warns")) == 1
    write(run, [])
    bare = page_of(run)
    assert len(bare.classed("warns")) == 3
    assert bare.text.count("Not measured") >= 2


def test_other_judges_numbers_and_pictures_without_a_word_are_no_lack_of_an_attack(run: Run) -> None:
    first = share("dsr", source_of("original", "direct"), 1, 20)
    other = [attack_estimate(None, "duo", 9, contract="other@1"), attack_estimate("p4d", "duo", 5, contract="other@1")]
    write(run, [first, *other])
    told = "by the judge that heads this page; the tables below have other judges' numbers"
    assert page_of(run).text.count(told) == 2
    assert "Not attacked yet" not in page_of(run).text
    add_pictures(run, "p4d", 2)
    write(run, plain_estimates())
    assert "Not measured there are pictures, and no judge's word on them: duo judge RUN" in page_of(run).text


def test_a_cost_names_what_was_refused_and_broken(run: Run) -> None:
    lost = [share(metric, source_of("duo", "keep"), n, 300) for metric, n in (("refused", 200), ("broken", 3))]
    write(run, [*agreement(90, 92), *lost])
    said = "No fall seen no attribute agrees less than before (n = 100 a set)"
    assert f"{said}; 66.7 % refused by a guard under keep prompts; 1.0 % broken under keep prompts" in page_of(run).text


def test_a_cost_says_nothing_of_another_judges_broken_pictures(run: Run) -> None:
    others = [
        share("broken", source_of("duo", "keep", contract), n, 300) for contract, n in ((JUDGE, 3), ("b[c]@1", 30))
    ]
    write(run, [*plain_estimates(), *agreement(90, 92), *others])
    cost = tile(page_of(run).text, "Cost", "What opens it")
    assert "; 1.0 % broken under keep prompts" in cost
    assert "10.0 %" not in cost


def test_without_an_edited_system_there_is_no_answer(run: Run) -> None:
    write(run, [], systems=["original"])
    assert page_of(run).classed("tiles") == []


def agreement(before: int, after: int) -> list[Estimate]:
    return [
        share("item agreement", source_of(system, "keep", READER), count, 100)
        for system, count in (("original", before), ("duo", after))
    ]


def test_a_cost_that_was_not_seen_is_said_so(run: Run) -> None:
    write(run, agreement(90, 92))
    assert "None seen no attribute agrees less than before (n = 100 a set)" in page_of(run).text


def test_without_a_reader_the_least_prior_preservation_is_the_cost(run: Run) -> None:
    kept = [
        Estimate.of("prior preservation", source_of("duo", scenario, "cosine"), value, value - 0.01, value + 0.01, 30)
        for scenario, value in (("keep", 0.95), ("wand", 0.91))
    ]
    write(run, kept)
    assert (
        "0.910 prior preservation under wand prompts, the least of 2 prompt sets: 0.900 to 0.920, n = 30"
        in page_of(run).text
    )


@pytest.mark.parametrize(
    ("attack", "labels"), [(None, ["before", "after"] * 3), ("p4d", 2 * ["before", "after", "3rd"])]
)
def test_six_pictures_of_the_first_prompts(run: Run, attack: str | None, labels: list[str]) -> None:
    add_pictures(run, None, 5)
    scores = plain_estimates()
    if attack is not None:
        add_pictures(run, attack, 4)
        scores.append(attack_estimate(attack, "duo", 1))
    write(run, scores)
    page = page_of(run)
    shown = page.source.partition('<ul class="cases">')[2].partition("</ul>")[0]
    assert shown.count("<img") == 6
    words = [label.replace("3rd", "after, under: P4D, free prompt") for label in labels]
    assert [part.partition("<")[0] for part in shown.split("<strong>")[1:]] == words
    assert shown.count('<label class="picture') == 6  # blurred until asked for
    named = "“king 0”; “king 1”." if attack else "“king 0”; “king 1”; “king 2”."
    assert f"The first prompts, the same noise before and after: {named}" in page.text


def test_no_pictures_where_a_system_has_none_or_none_are_wanted(run: Run) -> None:
    add_pictures(run, None, 3, systems=("original",))
    write(run, plain_estimates())
    assert page_of(run).classed("cases") == []
    add_pictures(run, None, 3)
    assert len(page_of(run).classed("cases")) == 1
    bare = write_report(run, images=False).read_text(encoding="utf-8")
    assert 'class="cases"' not in bare


def test_keep_prompts_and_the_largest_falls_are_plotted_and_the_rest_is_folded(full_page: Page) -> None:
    plots = [
        a["aria-label"] or ""
        for a in full_page.all("svg")
        if "agree" in (a["aria-label"] or "") or "asks for" in (a["aria-label"] or "")
    ]
    head, rest = plots
    assert "wand · item" in head
    assert "keep · colour" in head
    assert "wand · item" not in rest
    assert "book · subject" in rest
    fell = f"Of {2 * len(NEIGHBOURS)} beside keep prompts {len(NEIGHBOURS) - 1} fell in some system"
    assert f"{fell}; {len(NEIGHBOURS) - 1} that fell most are here, and the others are folded below." in full_page.text


def test_neighbours_are_folded_and_nothing_is_left_out(full_page: Page) -> None:
    head, _, folded = full_page.section("estimates").partition(f"Neighbours, {len(NEIGHBOURS)} prompt sets")
    for name in ("Direct wording", "Synonyms", "Indirect wording", "Keep prompts"):
        assert name in head
    for name in ("Wand prompts", "Flower prompts", "Balloon prompts", "Book prompts", "Empty-hands prompts"):
        assert name in folded
        assert name not in head


def test_long_titles_of_attacks_stay_apart_in_the_plot(run: Run) -> None:
    names = ("relearning-concept-100", "relearning-concept-300", "relearning-benign-300")
    write(run, [*plain_estimates(), *(attack_estimate(name, "duo", 5) for name in names)])
    source = page_of(run).source
    shown = [part.partition("</text>")[0].partition(">")[2] for part in source.split("<text")[1:]]
    assert shown.count("Relearning, 300 steps on") == 2
    assert shown.count("Relearning, 100 steps on") == 1
    assert shown.count("concept images") == 2
    assert "benign images" in shown


def test_what_lacks_a_number_on_many_sets_is_one_short_line(run: Run) -> None:
    gaps = [absence("needs 100 images", scenario=name, metric="fid") for name in NEIGHBOURS]
    write(run, plain_estimates(), absent=[*gaps, absence("no prompts were given", scenario="slang")])
    text = page_of(run).text
    assert f"FID, on {len(NEIGHBOURS)} prompt sets (duo): needs 100 images" in text
    assert "DSR, on slang prompts (duo): no prompts were given" in text
