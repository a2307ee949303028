"""The arena's numbers are of the settings that are recommended now: a leftover option is told, and none is left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.arena_settings import FORMS, differences, given_options, options_of

from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.settings.tree import merge, nest, write_settings

WRAP = {"name": "meta-unlearning", "settings": options_of("sword", "wraps", "meta-unlearning")}


def system_of(system: str, eraser: str, **other: Any) -> dict[str, Any]:
    """A system of arena.json that was made with what is recommended, but for some options."""
    options = {**options_of("sword", "erasers", eraser), **other}
    return {"system": system, "parts": [{"kind": "edit", "name": system, "eraser": eraser, "settings": options}]}


@pytest.mark.parametrize("eraser", ["duo", "uce", "esd-x"])
def test_what_is_recommended_passes(eraser: str) -> None:
    assert differences("sword", system_of(eraser, eraser)) == []


def test_an_option_that_the_concept_file_does_not_name_has_its_default() -> None:
    assert differences("sword", system_of("uce", "uce", keep_scale=0.1)) == ["uce: keep_scale 0.1, now 1.0"]
    assert differences("sword", system_of("uce-all", "uce")) == ["uce: wordings direct, now all"]
    assert differences("sword", system_of("uce-all", "uce", wordings="all")) == []
    without = system_of("esd-x", "esd-x")
    del without["parts"][0]["settings"]["eta"]
    assert differences("sword", without) == []
    # So has one of a group that came later.
    robust = system_of("uce+robust-duo", "robust-duo")
    robust["parts"][0]["settings"] = {
        **options_of("sword", "erasers", "robust-duo", "uce+robust-duo"),
        "captions": {"unsafe": 0.4, "own": 0.0, "empty": 0.1, "random": 0.1, "bank": 0.0, "search": 0.4},
    }
    assert differences("sword", robust) == []
    assert differences("sword", system_of("esd-x", "esd-x", gone=1)) == ["esd-x: gone 1, now no option"]


@pytest.mark.parametrize("name", FORMS)
def test_a_form_of_a_paper_is_held_against_its_own_options(name: str) -> None:
    eraser, form = FORMS[name]
    assert differences("sword", system_of(name, eraser, **form)) == []
    told = differences("sword", system_of(name, eraser))
    assert {line.split()[1] for line in told} == {*form}


def test_the_options_of_a_wrap_count() -> None:
    system = system_of("meta-unlearning-esd-x", "esd-x")
    system["parts"][0]["wrap"] = WRAP
    assert differences("sword", system) == []
    system["parts"][0]["wrap"] = {**WRAP, "settings": {"batch": 3}}
    assert differences("sword", system) == ["meta-unlearning: batch 3, now 10"]


def test_the_detector_that_a_guard_asks_may_be_named_or_not() -> None:
    for name in (None, "mini-judge"):
        guard = {"kind": "guard", "name": "output-filter", "settings": {"detector": name}}
        assert differences("sword", {"system": "output-filter", "parts": [guard]}) == []


def test_a_run_keeps_no_option_that_was_recommended_once(tmp_path: Path) -> None:
    earlier = resolve_settings({"concept": "sword", "output": str(tmp_path), "erasers": {"uce": {"keep_scale": 0.1}}})
    write_settings(tmp_path / "settings.yaml", earlier)
    now = resolve_settings(merge({"concept": "sword", "output": str(tmp_path)}, nest(given_options("sword"))))
    assert now.erasers["uce"] == options_of("sword", "erasers", "uce")
    assert now.erasers["uce"]["keep_scale"] == 1.0
