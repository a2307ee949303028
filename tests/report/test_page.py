"""The report of whole, partial, empty and hostile run folders."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import Scene
from duo_unlearn.records import ORIGINAL, Attempt, Estimate
from duo_unlearn.report.page import write_report
from duo_unlearn.runs.attempts import Group
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import sha256_of, write_text
from duo_unlearn.storage.pictures import save_png

from .html_page import Page, assert_inert, page_of
from .make_run import (
    TWO,
    absence,
    add_curves,
    add_images,
    add_pairs,
    add_record,
    add_results,
    attack_estimate,
    attempt_of,
    plain_estimates,
    share,
    source_of,
    write,
    write_attempts,
)  # fmt: skip

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)> $\\frac{ {{ 7*7 }}'


@pytest.fixture
def page(full_page: Page) -> Page:
    return full_page


def test_verdict_states_the_worst_score_with_its_interval_and_what_was_preserved(page: Page) -> None:
    start = "With “indirect wording” (worst of 3 prompt sets) “duo” shows no sword in 96.3 % of 300 images"
    assert start in page.text
    assert "(95 % interval 93.6 to 97.9 %; original model: 5.3 %)" in page.text
    kept = "on keep prompts (n = 300) the images agree with what was asked in subject 98.3 % (original 99.3 %)"
    assert kept in page.text
    assert "the largest fall is item under “wand prompts”, from 97.3 % to 89.3 %" in page.text


def test_estimates_stand_side_by_side_with_interval_n_and_contract(page: Page) -> None:
    rows = page.rows("DSR: concept not seen")
    assert rows[0] == ["4.0 % 2.3 to 6.9 % n = 300", "99.0 % 97.1 to 99.7 % n = 300", "C1"]
    assert page.rows("Prior preservation")[0] == ["is the reference", "0.941 0.930 to 0.952 n = 300", "C3"]
    assert "C1: mini-judge[item=sword>=0.5]@1a2b3c4d" in page.section("estimates")


def test_page_is_self_contained_semantic_and_described(page: Page) -> None:
    assert_inert(page)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = [href[1:] for _, a in page.elements if (href := a.get("href") or "").startswith("#")]
    assert set(targets) <= set(ids)
    assert all(image.get("alt") for image in page.all("img"))
    assert all(cell.get("scope") for cell in page.all("th"))
    assert all(svg.get("aria-label") and svg.get("role") == "img" for svg in page.all("svg"))
    assert all(a.get("aria-label") and a.get("tabindex") == "0" for a in page.classed("scroll"))
    assert len(page.all("svg")) == 7
    assert len(page.all("h1")) == 1
    assert "http" not in page.text


def test_letters_of_plots_are_text(page: Page) -> None:
    assert re.search(r"<text[^>]*>Indirect wording</text>", page.source)


@pytest.mark.slow
def test_the_same_folder_gives_the_same_bytes(full: Run) -> None:
    first = write_report(full).read_bytes()
    assert write_report(full).read_bytes() == first


def test_grids_show_the_first_24_and_frame_what_the_detector_saw(page: Page) -> None:
    direct = [i["alt"] or "" for i in page.all("img") if "sword" in (i["alt"] or "")]
    assert any(alt.startswith("original, ") and alt.endswith(", concept seen") for alt in direct)
    assert any(alt.startswith("duo, ") and alt.endswith(", concept not seen") for alt in direct)
    # Three attack sets of 24: all originals, and the edited numbers 3, 13 and 23. Above them the first three, before.
    assert len(page.classed("seen")) == 3 * (24 + 3) + 3
    words = "The first 24 of 30, in order. From top to bottom: original, duo."
    assert f"{words} Concept seen: original 30 of 30, duo 3 of 30." in page.text
    assert len(page.all("img")) == 9 * 24 * 2 + 24 * 2 + 6


def test_pairs_show_dropped_ones_with_their_reason(page: Page) -> None:
    assert page.text.count("Dropped: the sword is still seen") == 4
    assert "26 pairs are kept for training, 4 are dropped" in page.text


def test_pictures_are_hidden_unless_the_run_says_they_are_harmless(tmp_path: Path, page: Page) -> None:
    assert len([i for i in page.all("input") if i.get("type") == "checkbox"]) == len(page.all("img")) + 1
    run = Run(tmp_path)
    add_images(run, count=1)
    for entry, boxes in (({"sensitive": True}, 19), ({"sensitive": None}, 19), ({"sensitive": False}, 0)):
        run.update_record(**entry)
        assert len(page_of(run).all("input")) == boxes


def test_settings_and_provenance_are_shown(page: Page) -> None:
    assert "train.prior_weight" in page.text
    assert "λ of the prior term" in page.text
    assert "versions.torch 2.13.0" in page.text
    assert "train 1:28" in page.text
    assert "base 0123456789abcdef" in page.text
    # Pairs 41.2 s, training 87.5 s, and evaluation 72 s, of which 18 groups of 4 s are a part.
    assert "3:21 of one machine" in page.text


def test_untested_names_attacks_sets_and_the_single_seed(page: Page, tmp_path: Path) -> None:
    tail = page.section("untested")
    for name in (
        "ring-a-bell",
        "sneakyprompt",
        "unlearndiffatk",
        "p4d",
        "image-to-image :",
        "image-to-image-empty :",
        "each edit was trained once",
    ):
        assert name in tail
    assert tail.count("relearning") == 1  # its sizes are one attack
    assert "Slang prompts : no prompts were given" in tail
    assert "not evaluated in this run" not in tail
    run = Run(tmp_path)
    kept = [e for e in plain_estimates() if e.scenario != "synonym"]
    write(run, [*kept, attack_estimate("p4d-k", "duo", 19)])
    tail = page_of(run).section("untested")
    assert "a white-box prompt search" not in tail
    assert "Synonyms : not evaluated in this run" in tail


def test_empty_run_states_what_is_absent(tmp_path: Path) -> None:
    page = page_of(Run(tmp_path))
    assert_inert(page)
    assert "Whether the concept was erased is not known" in page.text
    for part in (
        "no estimates",
        "no evaluation images",
        "no pairs",
        "no training curves",
        "no settings file",
        "no record",
    ):
        assert part in page.text
    assert not re.search(r"\b0(\.0)? %", page.text)
    assert page.all("svg") == []


def few_images(run: Run) -> None:
    add_images(run, count=2)


@pytest.mark.parametrize("add", [add_results, few_images, add_pairs, add_curves, add_record])
def test_any_single_part_alone_gives_a_page(tmp_path: Path, add: Callable[[Run], None]) -> None:
    run = Run(tmp_path)
    add(run)
    page = page_of(run)
    assert_inert(page)
    assert len(page.classed("absent")) == (4 if add is add_record else 5)


def test_a_quick_run_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path)
    write(run, plain_estimates(), quick=True)
    assert "This was a quick evaluation" in page_of(run).text


def test_hostile_text_is_shown_and_inert(tmp_path: Path) -> None:
    run = Run(tmp_path)
    add_images(run, count=2, prompt=HOSTILE)
    add_pairs(run, count=7, prompt=HOSTILE, reason=HOSTILE)
    estimates = [
        share("dsr", source_of("duo", HOSTILE, HOSTILE), 4, 8),
        share(f"{HOSTILE} agreement", source_of("duo", "keep", HOSTILE), 4, 8),
        attack_estimate(HOSTILE, "duo", 4, preset=HOSTILE, contract=HOSTILE, scenario=HOSTILE),
    ]
    absent = [absence(HOSTILE, metric=HOSTILE, scenario=HOSTILE), absence(HOSTILE, attack=HOSTILE, preset=HOSTILE)]
    write(run, estimates, concept=HOSTILE, model=HOSTILE, absent=absent)
    write_text(run.settings, f"concept: {HOSTILE!r}\n")
    run.update_record(versions={HOSTILE: HOSTILE}, stages={HOSTILE: {"seconds": 1, "finished": HOSTILE}})
    page = page_of(run)
    assert_inert(page)
    assert page.all("script") == []
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "{{ 7*7 }}" in page.text
    assert len(page.all("svg")) == 3


def test_pictures_that_cannot_be_shown_are_marked(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    group = Group("duo", "direct", "direct", None)
    folder = group.folder(run)
    attempts = [
        attempt_of(run, folder / f"{i:04}.png", draw(Scene("king", "red", "none", "snow")), "a king", i)
        for i in range(4)
    ]
    outside = tmp_path / "outside.png"
    save_png(draw(Scene("king", "red", "none", "snow")), outside)
    (folder / "0000.png").write_bytes(b"no picture")
    (folder / "0001.png").unlink()
    save_png(draw(Scene("king", "blue", "none", "snow")), folder / "0002.png")  # whole, but not what was sampled
    attempts.append(attempt_of(run, folder / "0004.png", Image.new("RGB", (8, 8)), "a king", 4))
    escaping = [("../outside.png", sha256_of(outside)), (str(outside), sha256_of(outside))]
    for seed, (file, sha256) in enumerate(escaping, start=5):
        attempts.append(Attempt("a king", {}, seed, "a king", {}, file, sha256))
    write_attempts(run, group, attempts)
    page = page_of(run)
    assert len(page.all("img")) == 2
    assert page.text.count("file missing or not readable") == 5


def test_large_pictures_are_made_small_and_may_be_unjudged(tmp_path: Path) -> None:
    run = Run(tmp_path)
    attempt = attempt_of(run, run.originals / "0000.png", Image.new("RGB", (900, 450), "red"), "a king", 0)
    write_attempts(run, Group(ORIGINAL, "direct", "direct", None), [attempt])
    page = page_of(run)
    (image,) = page.all("img")
    content = base64.b64decode((image["src"] or "").split(",")[1])
    assert Image.open(io.BytesIO(content)).size == (224, 112)
    assert image["alt"] == "original, “a king”"
    assert "No verdicts are recorded." in page.text


def test_values_that_only_round_to_all_or_nothing_do_not_say_so(tmp_path: Path) -> None:
    run = Run(tmp_path)
    near = [("duo", 0.9999), (ORIGINAL, 0.0001)]
    write(run, [Estimate.of("dsr", source_of(system, "direct"), value, 0.0, 1.0, 9999) for system, value in near])
    text = page_of(run).text
    assert "in > 99.9 % of 9999 images" in text
    assert "original model: < 0.1 %" in text


def test_every_edit_that_was_trained_has_its_curves(tmp_path: Path) -> None:
    run = Run(tmp_path)
    add_curves(run)
    add_curves(run, name="esd", steps=20)
    page = page_of(run)
    assert "“duo” by optimizer step, 450 recorded; lines are means" in page.text
    assert "“esd” by optimizer step, 20 recorded." in page.text
    assert len(page.all("svg")) == 8
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))


def test_data_for_machines_names_every_system(full: Run) -> None:
    write_report(full)
    data = json.loads(full.report_data.read_text())
    assert [system["name"] for system in data["systems"]] == list(TWO)
    assert {e["system"] for e in data["estimates"]} == set(TWO)
    assert data["contract"].startswith("mini-judge")
