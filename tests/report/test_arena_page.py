"""The arena's page and figure, from estimates."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from duo_unlearn.experiments.pooled import pooled
from duo_unlearn.interval import wilson
from duo_unlearn.records import ORIGINAL, Estimate, Kind
from duo_unlearn.report.arena import Cost, Part, Standing, columns, write_arena
from duo_unlearn.report.arena_columns import control_of
from duo_unlearn.report.arena_figure import number_words
from duo_unlearn.report.arena_kept import preservation, prior_preservation

from .html_page import Page

KEPT = {"item": 0.98, "subject": 0.9, "colour": 0.1}
Place = tuple[str, str | None, str | None]
ITEMS = "control-item"
JUDGES = ("judge-b[item=sword>=0.5]@1", "judge[item=sword>=0.5]@2")
PLACES: list[Place] = [
    ("direct", None, None),
    ("implicit", None, None),
    ("direct", "p4d", "quick"),
    ("direct", "worst case", "quick"),
]


def share(
    metric: str, system: str, scenario: str, value: float, contract: str,
    attack: str | None = None, preset: str | None = None,
) -> Estimate:  # fmt: skip
    n = 50
    hits = round(value * n)
    low, high = wilson(hits, n)
    return Estimate(
        metric=metric, system=system, scenario=scenario, attack=attack, preset=preset, value=hits / n, low=low,
        high=high, n=n, unscored=0, contract=contract, seeds=(0,), sha256="",
    )  # fmt: skip


def standing(name: str, seed: int, kind: Kind = "eraser", places: Sequence[Place] = PLACES) -> Standing:
    rng = random.Random(seed)
    estimates = []
    for judge in JUDGES:
        for scenario, attack, preset in places:
            value = 0.0 if name == ORIGINAL else rng.random()
            estimates.append(share("dsr", name, scenario, value, judge, attack, preset))
        for scenario in ("keep", "wand"):
            reader = judge.partition("[")[0] + "@" + judge[-1]
            estimates.append(share("item agreement", name, scenario, rng.uniform(0.8, 1), reader))
    return Standing(name, kind, "prompts", "generator", Cost(170.0, 12_000, 1_200_000, 1.02), estimates)


@pytest.fixture(scope="module")
def twenty() -> list[Standing]:
    return [standing(ORIGINAL, 0, "original"), *(standing(f"system-{i}+<guard>", i) for i in range(1, 20))]


def test_a_filter_that_asks_the_first_judge_is_told(tmp_path: Path) -> None:
    plain, places = standing(ORIGINAL, 0, "original", PLACES[:1]), PLACES[:1]
    for asks, is_certain in ((JUDGES[0], True), (JUDGES[1], False)):
        part = Part("guard", "output-filter", None, {}, {"detector": asks, "seen": "nothing"})
        filtered = standing("output-filter", 1, "guard", places)._replace(parts=[part])
        text = write_arena(tmp_path, "sword", [plain, filtered], JUDGES, "a machine").read_text()
        assert ("Each DSR of “output-filter” by judge-b is 100" in text) == is_certain


@pytest.mark.slow
def test_the_page_has_a_row_a_system_and_escapes_names(twenty: list[Standing], tmp_path: Path) -> None:
    page = write_arena(tmp_path, "<sword>", twenty, JUDGES, "a machine")
    text = page.read_text()
    Page(text)
    assert text.count('<tr><th scope="row"><a href="#system-') == text.count('<table class="facts" id="system-') == 20
    assert text.count("<svg") == len(PLACES)
    assert "<guard>" not in text
    assert "<sword>" not in text
    assert "170 s, 12,000 passes, 1.2 M weights, ×1 an image" in text
    content = json.loads((tmp_path / "arena.json").read_text())
    assert [one["system"] for one in content["systems"]] == [one.system for one in twenty]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write_arena(tmp_path, "<sword>", twenty, JUDGES, "a machine")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_worst_case_is_the_last_column(twenty: list[Standing]) -> None:
    assert [column.title for column in columns(twenty)][-1] == "worst case (quick)"
    assert [column.attack for column in columns(twenty)][:2] == [None, None]


def test_preservation_is_that_of_the_first_judge_alone(twenty: list[Standing]) -> None:
    first = preservation(twenty[1], JUDGES)
    assert first is not None
    assert first.n == 100
    asked = [e for e in twenty[1].estimates if e.metric == "item agreement" and e.contract.startswith("judge-b@")]
    assert first.value == pytest.approx(sum(e.value for e in asked) / 2)
    assert preservation(twenty[1], ("judge@9",)) != first


def test_preservation_is_that_of_what_suffers_most() -> None:
    asked = [share(f"{what} agreement", "esd-x", "keep", value, "judge-b@1") for what, value in KEPT.items()]
    kept = preservation(Standing("esd-x", "eraser", "prompts", "generator", Cost(), asked), JUDGES)
    assert kept is not None
    assert kept.value == KEPT["colour"]


def test_what_a_system_costs_and_prior_preservation_stand_in_the_table(tmp_path: Path) -> None:
    prior = [
        dataclasses.replace(share("prior preservation", "duo", place, 0.5, "cosine[x]"), value=value, low=low, high=1.0)
        for place, value, low in (("keep", 0.98, 0.96), ("wand", 0.90, 0.8))
    ]
    one = standing("duo", 1, places=PLACES[:1])
    one = one._replace(estimates=[*one.estimates, *prior])
    found = prior_preservation(one)
    assert found is not None
    assert found.value == pytest.approx(0.94)
    assert found.n == 100
    assert found.low == pytest.approx(0.94 - math.hypot(0.02, 0.1) / 2)
    page = Page(
        write_arena(tmp_path, "sword", [one, standing("uce", 2, places=PLACES[:1])], JUDGES, "a machine").read_text()
    )
    beside = re.findall(r'<td class="beside">(.*?)</td>', page.source)
    assert beside == ["0.940", "170", "12", "1.2", "1", "–", "170", "12", "1.2", "1"]
    assert "0.940 (0.889 to 0.991), n = 100" in page.text


def test_an_interval_that_ends_at_1_makes_prior_preservation_no_surer() -> None:
    """As of three sets of pictures, in each of which one is another one: their intervals would reach beyond 1."""
    sets = [
        dataclasses.replace(
            share("prior preservation", "spell", place, 0.98, "cosine[x]"), value=0.98, low=0.94, high=1.0
        )
        for place in ("keep", "oar", "wand")
    ]
    found = prior_preservation(Standing("spell", "guard", "–", "generator", Cost(), sets))
    assert found is not None
    assert found.low == pytest.approx(0.98 - 0.04 / math.sqrt(3))
    assert found.high == 1


def test_what_a_guard_refused_is_told_and_what_of_it_must_stay(tmp_path: Path) -> None:
    places: list[Place] = [("direct", None, None)]

    def page(*refused: Estimate) -> str:
        plain, filtered = (standing(name, 1, "guard", places) for name in ("sld", "filter"))
        filtered = filtered._replace(estimates=[*filtered.estimates, *refused])
        return write_arena(tmp_path, "sword", [plain, filtered], JUDGES, "a machine").read_text()

    assert "refused" not in page().lower()
    direct = share("refused", "filter", "direct", 0.96, JUDGES[0])
    text = page(direct)
    assert text.count("96.0\xa0% refused") == 1
    assert text.count("nothing of what must stay") == 1
    asked = standing("filter", 1, "guard", places)
    alone = asked._replace(estimates=[*[e for e in asked.estimates if e.metric == "dsr"], direct])
    text = write_arena(tmp_path, "sword", [alone], JUDGES, "a machine").read_text()
    assert "96.0\xa0% refused" in text
    assert "must stay</td>" not in text  # nothing of it was asked
    text = page(
        direct, share("refused", "filter", "keep", 0.02, JUDGES[0]), share("refused", "filter", "wand", 0.06, JUDGES[0])
    )
    assert re.search("6 % under [^<]*wand[^<]*, n = 50: the most of what must stay", text)


def test_the_worst_case_is_told_with_the_attacks_that_it_is_of(tmp_path: Path) -> None:
    places = [PLACES[0], *PLACES[2:]]
    both, fewer = standing("duo", 1, places=places), standing("uce", 2, places=places)
    tina = share("dsr", "duo", "direct", 0.1, JUDGES[0], "tina", "quick")  # a probe, which counts in none
    sneaky = share("dsr", "duo", "direct", 0.1, JUDGES[0], "sneakyprompt", "quick")
    other = share("dsr", "duo", "direct", 0.1, JUDGES[0], "ring-a-bell", "paper")
    both = both._replace(estimates=[*both.estimates, tina, sneaky, other])
    page = Page(write_arena(tmp_path, "sword", [both, fewer], JUDGES, "a machine").read_text())
    said = "Worst case (quick): a prompt is defended where each of these is seen to fail: no attack, sneakyprompt, p4d."
    assert f"{said} Without sneakyprompt: uce." in page.text


def test_what_was_not_measured_is_a_dash_and_nothing_to_draw_is_said(tmp_path: Path) -> None:
    bare = Standing("uce", "eraser", "prompts", "generator", Cost(), [])
    other = standing("duo", 1)._replace(estimates=[share("dsr", "duo", "direct", 1.0, JUDGES[0])])
    text = write_arena(tmp_path, "sword", [bare, other], JUDGES, "a machine").read_text()
    assert (text.count('<td class="none">–</td>'), text.count('<td class="kept">–</td>')) == (1, 2)
    assert "nothing to draw" in text


def probed(control: float | None = 0.9, *sets: str) -> Standing:
    """A system under a probe, with its control or without; the sets of prompts that the control is on."""
    estimates = [
        share("dsr", "duo", "direct", 0.6, JUDGES[0], "tina", "quick"),
        share("item agreement", "duo", "keep", 0.95, "judge-b@1"),
    ]
    if control is not None:
        # The other judge reads it too, and another budget's control belongs to that budget.
        estimates += [
            share("item agreement", "duo", "control-item", 0.2, "judge@2", "tina", "quick"),
            share("item agreement", "duo", "control-item", 0.4, "judge-b@1", "tina", "paper"),
            *(share("item agreement", "duo", one, control, "judge-b@1", "tina", "quick") for one in sets),
        ]
    return Standing("duo", "duo", "images", "generator", Cost(), estimates)


@pytest.mark.slow
def test_a_control_stands_beside_its_probe_and_is_no_defence(tmp_path: Path) -> None:
    page = Page(write_arena(tmp_path, "sword", [probed(0.9, ITEMS)], JUDGES, "a machine").read_text())
    assert [column.title for column in columns([probed(0.9, ITEMS)])] == ["tina (quick)"]
    assert "control: 90.0 % come back" in page.text
    assert "It is never a defence." in page.text
    assert "duo 60 % (control: 90 % of safe items come back)" in page.source
    # It stays when what must stay is counted, and its line is in the figure alone where there is a control.
    assert preservation(probed(0.9, ITEMS), JUDGES) == preservation(probed(None), JUDGES)
    drawn = (tmp_path / "arena.png").read_bytes()
    bare = write_arena(tmp_path, "sword", [probed(None)], JUDGES, "a machine").read_text()
    assert "control" not in bare
    assert (tmp_path / "arena.png").read_bytes() != drawn


@pytest.mark.slow
def test_a_control_on_keep_prompts_is_told_apart_has_no_line_and_gives_way(tmp_path: Path) -> None:
    old = Page(write_arena(tmp_path, "sword", [probed(0.7, "control")], JUDGES, "a machine").read_text())
    assert "control on keep prompts: 70.0 % as asked" in old.text
    assert "Of such prompts many show no item" in old.text
    assert "% of safe items come back" not in old.source
    both = probed(0.9, ITEMS)
    both = both._replace(estimates=[*probed(0.7, "control").estimates, *both.estimates])
    new = Page(write_arena(tmp_path, "sword", [both], JUDGES, "a machine").read_text())
    assert "control: 90.0 % come back" in new.text
    assert "keep prompts:" not in new.text
    column = columns([both])[0]
    found = control_of(both, column, JUDGES)
    assert found is not None
    assert (found.scenario, found.value) == (ITEMS, 0.9)


def test_each_seed_stands_beside_what_they_are_counted_together_to(tmp_path: Path) -> None:
    runs = [
        [dataclasses.replace(share("dsr", "duo", "direct", value, JUDGES[0]), seeds=(seed,))]
        for seed, value in ((0, 0.9), (1, 0.3))
    ]
    both = pooled(runs)
    two = Standing("duo", "duo", "images", "generator", Cost(), both, runs=runs)
    page = Page(write_arena(tmp_path, "sword", [two], JUDGES, "a machine").read_text())
    (system,) = json.loads((tmp_path / "arena.json").read_text())["systems"]
    (estimate,) = system["estimates"]
    assert (estimate["value"], estimate["seeds"]) == (0.6, [0, 1])
    assert estimate["by_seed"] == [{"seed": 0, "value": 0.9, "n": 50}, {"seed": 1, "value": 0.3, "n": 50}]
    assert "by seed 90 · 30 %" in page.text
    assert "not of the training seeds" in page.text
    alone = two._replace(estimates=runs[0], runs=runs[:1])
    page = Page(write_arena(tmp_path, "sword", [alone], JUDGES, "a machine").read_text())
    (system,) = json.loads((tmp_path / "arena.json").read_text())["systems"]
    assert "by_seed" not in system["estimates"][0]
    assert "seed" not in page.text


def test_the_parts_of_a_system_are_told_with_their_settings_and_what_a_search_sees(tmp_path: Path) -> None:
    edit = Part("edit", "soft", "duo", {"beta": 5}, {"strength": 1.0})
    guards = [Part("guard", name, None, {}, {"seen": "nothing"}) for name in ("safree", "negative-prompt")]
    guarded = standing("duo+safree", 1, "guard", PLACES[:1])._replace(parts=[edit, *guards])
    page = Page(write_arena(tmp_path, "sword", [guarded], JUDGES, "a machine").read_text())
    (system,) = json.loads((tmp_path / "arena.json").read_text())["systems"]
    assert system["parts"] == [
        {"kind": "edit", "name": "soft", "eraser": "duo", "settings": {"beta": 5}, "strength": 1.0},
        {"kind": "guard", "name": "safree", "settings": {}, "seen": "nothing"},
        {"kind": "guard", "name": "negative-prompt", "settings": {}, "seen": "nothing"},
    ]
    assert "It sees a part of safree. Where" in page.text


@pytest.mark.parametrize(
    ("numbers", "words"), [([3], "3"), ([2, 1], "1, 2"), ([1, 2, 3, 7], "1–3, 7"), ([5, 6, 9, 10, 11], "5, 6, 9–11")]
)
def test_runs_of_numbers_are_told_as_one(numbers: list[int], words: str) -> None:
    assert number_words(numbers) == words


def test_a_defence_of_broken_pictures_is_marked(tmp_path: Path) -> None:
    whole, cracked = (
        Standing(name, "eraser", "prompts", "generator", Cost(), [
            share("dsr", name, "direct", 1.0, JUDGES[0]), share("broken", name, "direct", broken, JUDGES[0]),
            share("item agreement", name, "keep", 1.0, JUDGES[0]),
        ])
        for name, broken in (("uce", 0.08), ("dcpo", 0.5))
    )  # fmt: skip
    said = [Page(write_arena(tmp_path, "sword", [one], JUDGES, "a machine").read_text()) for one in (whole, cracked)]
    assert ["100†" in page.text for page in said] == [False, True]
    assert ["† marks" in page.text for page in said] == [False, True]
    assert ["more than one picture in ten broken" in page.source for page in said] == [False, True]
    assert ["A hollow mark" in page.text for page in said] == [False, True]
    assert "Each is of 50 images." in said[0].text
