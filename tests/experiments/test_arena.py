"""The arena: edits are made where they are missing, all systems are asked alike, and one page has them all."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any, get_args

import pytest

import duo_unlearn as duo
from duo_unlearn.arena.plans import AttackPlan
from duo_unlearn.erasers.pictures import Origin
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.arena import entrant, makers, read_together, reads_of
from duo_unlearn.experiments.arena_check import check_arena, erasers_of
from duo_unlearn.experiments.pooled import pooled
from duo_unlearn.interval import wilson
from duo_unlearn.runs.results import read_results

from ..drawn_pairs import draw_pairs
from ..families import small_models
from .small_run import new_run

SYSTEMS = ("duo", "soft", "duo+negative-prompt")
ENTRANTS = ("soft=duo,beta=5000",)
ATTACKS = [AttackPlan(["edit-removal"], prompts=2)]


@pytest.fixture(scope="module")
def arena_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run and the folder of its arena's page."""
    run = new_run(tmp_path_factory.mktemp("arena"), train__max_train_steps=1, train__rank=2)
    page = duo.run_arena([run], SYSTEMS, run.run.folder / "arena", entrants=ENTRANTS, attacks=ATTACKS)
    return run.run.folder, page


def content(page: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((page.parent / "arena.json").read_text())
    return found


@pytest.mark.slow
def test_every_system_has_its_row_with_what_it_is_and_costs(arena_run: tuple[Path, Path]) -> None:
    rows = {row["system"]: row for row in content(arena_run[1])["systems"]}
    assert list(rows) == ["original", *SYSTEMS]
    assert [rows[name]["kind"] for name in rows] == ["original", "duo", "eraser", "guard"]
    assert rows["soft"]["reads"] == "images, no word"
    assert rows["duo+negative-prompt"]["level"] == "input and generator"
    assert rows["original"]["cost"]["changed"] is None
    # A step of four pairs, both members and the prior, through policy and reference.
    assert [rows[name]["cost"]["passes"] for name in SYSTEMS] == [24, 24, 24]
    for name in SYSTEMS:
        assert rows[name]["cost"]["changed"] > 1000
        assert rows[name]["cost"]["image"] > 0.2
        asked = {(e["metric"], e["scenario"], e["attack"]) for e in rows[name]["estimates"]}
        assert ("dsr", "direct", None) in asked
    parts = {name: rows[name]["parts"] for name in rows}
    assert parts["original"] == []
    assert [(one["name"], one["eraser"]) for one in parts["soft"]] == [("soft", "duo")]
    assert (parts["duo"][0]["settings"]["beta"], parts["soft"][0]["settings"]["beta"]) == (20, 5000)
    edit, guard = parts["duo+negative-prompt"]
    assert edit == parts["duo"][0]
    assert (guard["kind"], guard["seen"]) == ("guard", "whole")
    assert guard["settings"] == {"text": "a figure holding a sword"}  # as the concept file recommends
    attacked = {e["attack"] for e in rows["soft"]["estimates"]}
    assert "edit-removal" in attacked


@pytest.mark.slow
def test_the_same_command_makes_nothing_again(arena_run: tuple[Path, Path]) -> None:
    folder, page = arena_run
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix in (".safetensors", ".png")}
    kept = (page.parent / "arena.json").read_bytes()
    duo.run_arena([duo.open_run(folder, quiet=True)], SYSTEMS, page.parent, entrants=ENTRANTS, attacks=ATTACKS)
    drawn = page.parent / "arena.png"
    assert {path: path.stat().st_mtime_ns for path in before if path != drawn} == {
        path: time for path, time in before.items() if path != drawn
    }
    assert (page.parent / "arena.json").read_bytes() == kept


@pytest.mark.slow
def test_runs_of_several_seeds_are_pooled_and_others_refused(arena_run: tuple[Path, Path], tmp_path: Path) -> None:
    folder, _ = arena_run
    first = duo.open_run(folder, quiet=True)
    with pytest.raises(DuoError, match="seeds of their own"):
        duo.run_arena([first, first], ["duo"], tmp_path / "both")
    same: dict[str, Any] = {"concept": first.settings.concept, "pairs__folder": str(first.settings.pairs.folder)}
    other = new_run(tmp_path, train__max_train_steps=1, train__rank=2, seed=1, **same)
    page = duo.run_arena([first, other], ["duo", "original", "duo"], tmp_path / "both", attacks=[])
    (original, own) = content(page)["systems"]
    alone = [
        next(e for e in read_results(run.run).estimates if (e.system, e.metric) == ("duo", "dsr"))
        for run in (first, other)
    ]
    key = ("metric", "scenario", "attack", "contract")
    found = next(e for e in own["estimates"] if all(e[name] == getattr(alone[0], name) for name in key))
    assert found["n"] == sum(e.n for e in alone)
    assert found["seeds"] == [0, 1]
    assert found["by_seed"] == [
        {"seed": seed, "value": e.value, "n": e.n} for seed, e in zip((0, 1), alone, strict=True)
    ]
    assert original["system"] == "original"
    weaker = new_run(tmp_path / "weaker", train__max_train_steps=2, train__rank=2, seed=2, **same)
    with pytest.raises(DuoError, match="more than the seed"):
        duo.run_arena([first, weaker], ["duo"], tmp_path / "both")


@pytest.mark.parametrize(
    ("systems", "entrants", "said"),
    [
        (["duo", "dou"], [], "unknown part"),
        (["duo+safree+ce-sdwv"], [], "exclude"),
        (["duo+pno"], [], "PNO|pno"),
        (["soft"], ["soft=duo", "soft=duo,beta=2"], "one name"),
        (["duo"], ["soft=duo"], "no system has"),
        (["wrapped"], ["wrapped=uce,wrap=meta-unlearning"], "cannot be wrapped"),
        (["uce+robust-duo"], [], "made apart from uce"),
        (["uce+r"], ["r=robust-duo,floor=uce", "uce=uce,weight=2"], "made with the run's options"),
        (["uce+r"], ["r=robust-duo,floor=uce,mixed_precision=fp16"], "cannot be used so"),
        (["r"], ["r=robust-duo,floor=uce"], "is made on top of uce"),
        (["r+uce"], ["r=robust-duo,floor=uce"], "is made on top of uce"),
        (["duo+duo"], [], "each edit and guard once"),
        (["duo+sld+sld"], [], "each edit and guard once"),
        (["original"], [], "a system beside the original"),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_made(
    tmp_path: Path, systems: list[str], entrants: list[str], said: str
) -> None:
    run = duo.open_run(tmp_path / "run", settings={"evaluate.judges": ["mini-judge"]}, quiet=True)
    with pytest.raises(DuoError, match=said):
        duo.run_arena([run], systems, tmp_path, entrants=entrants)
    assert not run.run.pairs.exists()


def test_without_a_name_there_is_every_eraser_that_the_run_can_have(tmp_path: Path) -> None:
    run = duo.open_run(tmp_path / "run", settings={"recipe": "robust"}, quiet=True)
    said: list[str] = []
    assert erasers_of(run, said.append) == [
        name if name != "robust-duo" else "uce+robust-duo" for name in ERASERS.names()
    ]
    assert said == []
    check_arena([run], makers([], erasers_of(run, said.append)), erasers_of(run, said.append))


def test_what_a_family_or_pairs_without_prompts_cannot_have_is_left_out(tmp_path: Path) -> None:
    small_models.sd3(tmp_path / "model")
    given = {"model": str(tmp_path / "model"), "detector": "clip"}
    said: list[str] = []
    found = erasers_of(duo.open_run(tmp_path / "sd3", concept="gun", settings=given, quiet=True), said.append)
    assert {"duo", "esd-u", "spm"} <= set(found)
    assert not {"uce", "rece", "hirm", "esd-x"} & set(found)
    assert sorted(line.partition(":")[0] for line in said) == sorted(set(ERASERS.names()) - set(found))
    draw_pairs(tmp_path / "mine", 2)
    settings = {"pairs.folder": str(tmp_path / "mine"), "pairs.trust": True, "train.captions": "none"}
    run = duo.open_run(tmp_path / "own", settings=settings, quiet=True)
    assert "uce" not in erasers_of(run, said.append)
    assert "duo" in erasers_of(run, said.append)
    with pytest.raises(DuoError, match="would read prompts that the pairs have not"):
        duo.run_arena([run], ["duo", "uce"], tmp_path / "page")
    assert not run.run.pairs.exists()


@pytest.mark.slow
def test_an_edit_that_another_process_makes_is_left_to_it(tmp_path: Path) -> None:
    run = new_run(tmp_path, train__max_train_steps=1, train__rank=2)
    done = threading.Event()

    def work() -> None:
        duo.run_arena([run], SYSTEMS, tmp_path / "arena", entrants=ENTRANTS)
        done.set()

    with run.run.claim("edit.duo") as mine:
        assert mine
        thread = threading.Thread(target=work)
        thread.start()
        while not run.run.edit("soft").is_dir() and thread.is_alive():
            time.sleep(0.01)
        assert run.run.edit("soft").is_dir()
        assert not run.run.edit("duo").is_dir()
        assert not done.is_set()
    thread.join()
    assert done.is_set()
    assert run.run.edit("duo").is_dir()
    assert {"train", "train soft"} <= set(run.run.read_record()["stages"])


@pytest.mark.slow
def test_pooling_adds_counts_up(arena_run: tuple[Path, Path]) -> None:
    first = next(e for e in read_results(duo.open_run(arena_run[0], quiet=True).run).estimates if e.metric == "dsr")
    import dataclasses

    both = pooled(
        [
            [dataclasses.replace(first, value=1.0, n=3, seeds=(0,))],
            [dataclasses.replace(first, value=0.0, n=1, seeds=(1,))],
        ]
    )
    assert [(e.value, e.n, e.seeds, (e.low, e.high)) for e in both] == [(0.75, 4, (0, 1), tuple(wilson(3, 4)))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nobody", "unknown eraser"),
        ("a+b=duo", "cannot be the name"),
        ("original=duo", "cannot be the name"),
        ("duo=uce", "cannot be the name"),
        ("soft=duo,beta", "KEY=VALUE"),
        ("soft=duo,bta=5", "have faults"),
        ("soft=esd-x,wrap=paper", "unknown wrap"),
    ],
)
def test_bad_entrants_are_told(text: str, said: str) -> None:
    with pytest.raises(DuoError, match=said):
        entrant(text)


def test_an_entrant_is_an_eraser_with_options() -> None:
    assert entrant("uce").eraser == "uce"
    plan = entrant("weak=esd-x,steps=20,latents=pairs,wrap=meta-unlearning")
    assert (plan.name, plan.eraser, plan.options, plan.wrap) == (
        "weak", "esd-x", {"steps": 20, "latents": "pairs"}, "meta-unlearning",
    )  # fmt: skip


def test_an_arena_is_of_one_concept(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="of one concept"):
        duo.run_arena([], ["duo"], tmp_path)


@pytest.mark.parametrize(
    ("eraser", "settings", "said"),
    [
        ("duo", {"captions": "none"}, "images, no word"),
        ("duo", {"captions": "unsafe"}, "images and prompts"),
        ("diffusion-dpo", {"captions": "none"}, "images, no word"),
        ("dcpo", {"captions": "dual"}, "images and prompts"),
        ("salun", {"wordings": "direct"}, "images and prompts"),
        ("uce", {"wordings": "all"}, "prompts in all wordings"),
        ("esd-x", {"wordings": "direct", "latents": "sampled"}, "prompts"),
        ("esd-x", {"wordings": "direct", "latents": "pairs"}, "images and prompts"),
        ("esd-x", {"wordings": "all", "form": "pair", "latents": "sampled"}, "prompts in all wordings"),
        ("esd-x", {"wordings": "all", "form": "word", "latents": "sampled"}, "prompts"),
        ("of others", {}, ""),
    ],
)
def test_what_an_eraser_was_given_is_told_by_its_options(eraser: str, settings: dict[str, Any], said: str) -> None:
    assert reads_of({"eraser": eraser, "settings": settings}) == said


def test_latents_that_are_left_to_the_family_are_the_pairs_where_none_are_sampled() -> None:
    found = {"eraser": "spm", "settings": {"wordings": "direct", "latents": None}}
    assert [reads_of(found, own) for own in get_args(Origin)] == ["prompts", "images and prompts"]


def test_a_wrap_trains_on_pictures() -> None:
    assert reads_of({"eraser": "esd-x", "settings": {}, "wrap": {"name": "meta-unlearning"}}) == "images and prompts"


def test_a_floors_prompts_are_told_once() -> None:
    assert read_together(["prompts", "images and prompts"]) == "images and prompts"
    assert read_together(["images, no word", "pairs", "pairs", ""]) == "images, no word and pairs"
    assert read_together([]) == ""
