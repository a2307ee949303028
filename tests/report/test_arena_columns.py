"""Which systems stand in a column of the arena, and what its figure has across."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from duo_unlearn.experiments.pooled import pooled
from duo_unlearn.records import ORIGINAL, Awareness, Estimate, Kind
from duo_unlearn.report.arena import Cost, Standing, columns, panels_of, write_arena
from duo_unlearn.report.arena_columns import of_column
from duo_unlearn.report.arena_worst import worst_attacks, worst_words
from duo_unlearn.report.read import Absent

from .html_page import Page
from .test_arena_page import JUDGES, share


def test_a_system_without_guards_stands_in_both_columns_of_a_search_on_guards() -> None:
    def searched(name: str, kind: Kind, by_search: dict[Awareness | None, float]) -> Standing:
        found = [
            dataclasses.replace(share("dsr", name, "direct", value, JUDGES[0], attack, "quick"), search=search)
            for attack in ("p4d", "worst case")
            for search, value in by_search.items()
        ]
        return Standing(name, kind, "prompts", "generator", Cost(), found)

    systems = [
        searched("duo", "duo", {None: 0.9}), searched("uce+sld", "guard", {"unaware": 0.7, "aware": 0.2}),
        searched("sld", "guard", {None: 0.1}),
    ]  # fmt: skip
    places = columns(systems)
    assert [(place.attack, place.search) for place in places] == [
        ("p4d", "aware"), ("p4d", "unaware"), ("worst case", "aware"), ("worst case", "unaware"),
    ]  # fmt: skip
    values = {
        (place.search, one.system): None if (e := of_column(one, place, "dsr", JUDGES[0])) is None else e.value
        for place in places[2:]
        for one in systems
    }
    assert values == {
        ("aware", "duo"): 0.9, ("aware", "uce+sld"): 0.2, ("aware", "sld"): None,
        ("unaware", "duo"): 0.9, ("unaware", "uce+sld"): 0.7, ("unaware", "sld"): 0.1,
    }  # fmt: skip


def test_no_number_is_lost_where_every_search_was_aware() -> None:
    def worst(name: str, kind: Kind, search: Awareness | None) -> Standing:
        found = share("dsr", name, "direct", 0.9, JUDGES[0], "worst case", "quick")
        return Standing(name, kind, "prompts", "generator", Cost(), [dataclasses.replace(found, search=search)])

    systems = [worst("duo", "duo", None), worst("sld", "guard", "aware"), worst("safree", "guard", None)]
    places = columns(systems)
    assert [place.search for place in places] == [None, "aware"]
    for one in systems:
        assert any(of_column(one, place, "dsr", JUDGES[0]) for place in places)


def test_under_a_judge_that_reads_no_items_the_axis_is_prior_preservation(tmp_path: Path) -> None:
    judge = ("nudenet[exposed>=0.45]@1",)

    def system(name: str, kind: Kind, dsr: float) -> Standing:
        found = [share("dsr", name, "direct", dsr, judge[0])]
        alike = dataclasses.replace(share("prior preservation", name, "keep", 0.5, "cosine[x]"), value=0.94)
        found += [alike] if kind != "original" else []
        return Standing(name, kind, "prompts", "generator", Cost(), found)

    systems = [system(ORIGINAL, "original", 0.0), system("uce", "eraser", 0.9)]
    (panel,) = panels_of(systems, columns(systems), judge)
    assert [mark.kept[0] for mark in panel.marks] == [1.0, 0.94]
    assert panel.across == "prior preservation, %"
    text = Page(write_arena(tmp_path, "nudity", systems, judge, "a machine").read_text()).text
    assert "prior preservation of keep and neighbour pictures, as this judge reads no items" in text
    assert "there is nothing to draw" not in text
    refused = [share("refused", "uce", "direct", 0.1, judge[0])]
    guarded = [systems[0], systems[1]._replace(kind="guard", estimates=[*systems[1].estimates, *refused])]
    text = Page(write_arena(tmp_path, "nudity", guarded, judge, "a machine").read_text()).text
    assert "nothing of what must stay" in text
    bare = [s._replace(estimates=s.estimates[:1]) for s in systems]
    assert panels_of(bare, columns(bare), judge) == []


def test_what_has_no_number_is_told_with_the_reason(tmp_path: Path) -> None:
    judge = JUDGES[:1]
    one = Standing("duo", "duo", "images", "generator", Cost(), [share("dsr", "duo", "direct", 1.0, judge[0])])
    lacking = [
        Absent("dsr", name, "direct", "p4d", "quick", "the family reads <T5> too") for name in ("original", "duo")
    ]
    page = Page(write_arena(tmp_path, "gun", [one], judge, "a machine", lacking).read_text())
    assert "p4d (quick budget), on direct wording (original, duo): the family reads <T5> too" in page.text
    assert "the family reads <T5>" not in page.source  # escaped
    content = json.loads((tmp_path / "arena.json").read_text())
    assert [(entry["system"], entry["attack"]) for entry in content["absent"]] == [("original", "p4d"), ("duo", "p4d")]
    assert "What has no number" not in write_arena(tmp_path, "gun", [one], judge, "a machine").read_text()


def test_an_aware_worst_case_is_told_with_the_unaware_searches_that_it_counts() -> None:
    def found(attack: str | None, search: Awareness | None) -> Estimate:
        preset = None if attack is None else "quick"
        return dataclasses.replace(share("dsr", "sld", "direct", 0.9, JUDGES[0], attack, preset), search=search)

    numbers = [found(None, None), found("p4d", "unaware"), found("soft-prompt", "aware")]
    guarded = Standing("sld", "guard", "prompts", "generator", Cost(), [*numbers, found("worst case", "aware")])
    (column,) = (place for place in columns([guarded]) if place.attack == "worst case")
    assert worst_attacks(guarded, column) == ["no attack", "soft-prompt", "p4d"]
    (sentence,) = worst_words([guarded], [column])
    assert "Searches that are unaware of a guard count too." in sentence


def test_what_not_every_run_has_is_told_as_that(tmp_path: Path) -> None:
    def of(seed: int, attack: str | None) -> Estimate:
        found = share("dsr", "duo", "direct", 0.9, JUDGES[0], attack, None if attack is None else "quick")
        return dataclasses.replace(found, seeds=(seed,))

    runs = [[of(seed, None), of(seed, "soft-prompt"), of(seed, "worst case")] for seed in (0, 1)]
    runs[0].append(of(0, "p4d"))
    two = Standing("duo", "duo", "images", "generator", Cost(), pooled(runs), runs=runs)
    (column,) = (place for place in columns([two]) if place.attack == "worst case")
    assert worst_attacks(two, column) == ["no attack", "soft-prompt"]
    (sentence,) = worst_words([two], [column])
    assert sentence.endswith("Without p4d: duo.")
    text = Page(write_arena(tmp_path, "sword", [two], JUDGES, "a machine").read_text()).text
    assert "counted together; ‡ marks those that some of them have not" in text
    assert text.count("90‡") == text.count("of seed 0 alone") == 1
    both = two._replace(runs=[run[:3] for run in runs], estimates=pooled([run[:3] for run in runs]))
    assert "‡" not in write_arena(tmp_path, "sword", [both], JUDGES, "a machine").read_text()


def test_the_number_of_a_judge_is_never_in_another_ones_place(tmp_path: Path) -> None:
    judges = (*JUDGES, "clip[sword]@3")
    found = [share("dsr", "duo", "direct", value, judge) for value, judge in ((0.9, judges[0]), (0.3, judges[2]))]
    one = Standing("duo", "duo", "images", "generator", Cost(), found)
    text = Page(write_arena(tmp_path, "sword", [one], judges, "a machine").read_text()).text
    assert "90.0 % (–) (30)" in text
    assert "clip[sword]@3 say, in this order; a dash: no number" in text
    assert "(–)" not in write_arena(tmp_path, "sword", [one], judges[:2], "a machine").read_text()
