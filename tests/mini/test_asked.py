"""Prompts are of held-out scenes in every wording, and are scored by what each asks for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from duo_unlearn.mini.fit import sampling
from duo_unlearn.mini.fit.asked import Asked, held_out_prompts, sample_figures
from duo_unlearn.mini.fit.batches import JUDGED
from duo_unlearn.mini.fit.card import load_pipeline
from duo_unlearn.mini.fit.quality import Reading, read
from duo_unlearn.mini.model.bundle import load_judge
from duo_unlearn.mini.model.judge_net import attribute_ids, item_marks
from duo_unlearn.mini.world.captions import LANGUAGES, WORDINGS
from duo_unlearn.mini.world.scenes import CARRIERS, ITEMS, MOUNTS, Person, Scene, is_held_out

from .described import heard

CPU = torch.device("cpu")
COUNT = 72
OF_ITEMS = [f"{item}, {wording}" for item in ("sword", "balloon") for wording in WORDINGS]
OTHERS = ["sword, implicit", "sword, in no hand", "sword, long", "negation"]
BARRED = {"figures", "sword, implicit", *(f"sword, {w}" for w in ("direct", "synonym", "description", *LANGUAGES))}
GROUPS = ["figures", "objects", "two figures", *OF_ITEMS, *OTHERS]


@pytest.fixture(scope="module")
def prompts() -> dict[str, list[Asked]]:
    """Prompts by group."""
    found: dict[str, list[Asked]] = {}
    for one in held_out_prompts(seed=1, count=COUNT):
        found.setdefault(one.group, []).append(one)
    return found


def test_every_group_has_as_many_prompts_as_asked_for(prompts: dict[str, list[Asked]]) -> None:
    counts = {group: COUNT if group in BARRED else COUNT // 4 for group in GROUPS}
    assert {group: len(some) for group, some in prompts.items()} == counts


@pytest.mark.parametrize("group", GROUPS)
def test_prompts_are_of_combinations_that_training_never_saw(prompts: dict[str, list[Asked]], group: str) -> None:
    assert all(is_held_out(one.scene) for one in prompts[group])


def test_prompts_say_everything_and_each_has_a_noise_of_its_own(prompts: dict[str, list[Asked]]) -> None:
    every = [one for some in prompts.values() for one in some]
    assert len({one.seed for one in every}) == len(every)
    # In English: the mixed groups are asked in any language.
    for group in set(GROUPS) - {"figures", "objects", "two figures", "sword, in no hand"}:
        if group.rsplit(", ", 1)[-1] not in LANGUAGES:
            assert all(one.scene.colour in one.prompt for one in prompts[group])
            assert all(one.scene.subject in one.prompt for one in prompts[group])


@pytest.mark.parametrize("group", OF_ITEMS)
def test_an_items_prompts_say_it_in_their_wording_alone(prompts: dict[str, list[Asked]], group: str) -> None:
    item, wording = group.split(", ")
    language = wording if wording in LANGUAGES else "english"
    for one in prompts[group]:
        assert one.scene.items == (item,)
        said = heard(one.prompt, language)
        assert {name for name, _ in said} == {item}, one.prompt
        if language == "english":
            assert said == {(item, wording)}, one.prompt


def test_the_implicit_are_armed_pirates_guards_and_duels_of_whom_nothing_is_said(
    prompts: dict[str, list[Asked]],
) -> None:
    kinds = Counter("duel" if one.scene.duel else one.scene.subject for one in prompts["sword, implicit"])
    assert kinds == dict.fromkeys(["duel", *CARRIERS], COUNT // 3)
    for one in prompts["sword, implicit"]:
        assert one.scene.items == ("sword",)
        assert not heard(one.prompt, "english")


def test_swords_in_no_hand_are_on_castles_and_in_stones(prompts: dict[str, list[Asked]]) -> None:
    assert {one.scene.subject for one in prompts["sword, in no hand"]} == set(MOUNTS)
    assert {one.scene.item for one in prompts["sword, in no hand"]} == {"sword"}


def test_long_prompts_are_long_and_negations_show_nothing(prompts: dict[str, list[Asked]]) -> None:
    assert all(len(one.prompt.split()) >= 25 for one in prompts["sword, long"])
    for one in prompts["negation"]:
        assert one.scene.items == ("none",)
        assert len({name for name, _ in heard(one.prompt, "english")}) == 1


def test_two_figures_and_objects_are_what_their_groups_say(prompts: dict[str, list[Asked]]) -> None:
    assert all(one.scene.other is not None for one in prompts["two figures"])
    assert not any(one.scene.is_figure for one in prompts["objects"])
    assert {one.scene.items for one in prompts["objects"]} == {("none",)}
    assert all(one.scene.is_figure and one.scene.other is None for one in prompts["figures"])


def test_prompts_are_the_seeds() -> None:
    assert held_out_prompts(seed=1, count=3) == held_out_prompts(seed=1, count=3)
    assert held_out_prompts(seed=2, count=3) != held_out_prompts(seed=1, count=3)


SWORD, BOOK = Scene("king", "red", "sword", "snow"), Scene("king", "red", "book", "snow")
EMPTY, HOUSE = Scene("king", "red", "none", "snow"), Scene("house", "red", "none", "snow")
ARMED = Scene("king", "red", "sword", "snow", other=Person("robot", "blue", "oar"))


def reading_of(scenes: list[Scene]) -> Reading:
    """What a judge reads that errs in nothing."""
    ids = attribute_ids(scenes)
    return Reading({name: ids[name] for name in JUDGED}, item_marks(scenes).bool())


def scored(groups: list[str], asked_for: list[Scene], drawn: list[Scene]) -> dict[str, tuple[float, int]]:
    """The figures where a model drew one scene when it was asked for another."""
    every = [Asked(group, scene, "", i) for i, (group, scene) in enumerate(zip(groups, asked_for, strict=True))]
    found = sample_figures(every, reading_of(drawn))
    return {name: (figure.value, figure.n) for name, figure in found.items()}


def test_figures_and_objects_are_scored_by_attribute_and_item() -> None:
    found = scored(["figures", "figures", "objects"], [SWORD, BOOK, HOUSE], [SWORD, EMPTY, HOUSE])
    assert found == {
        "samples/figures, subject": (1.0, 2),
        "samples/figures, colour": (1.0, 2),
        "samples/figures, place": (1.0, 2),
        "samples/figures, item": (0.5, 2),
        "samples/figures, item sword": (1.0, 1),
        "samples/figures, item book": (0.0, 1),
        "samples/objects, subject": (1.0, 1),
        "samples/objects, colour": (1.0, 1),
        "samples/objects, place": (1.0, 1),
        "samples/broken": (0.0, 3),
    }


def test_an_items_group_counts_where_that_item_is_to_be_seen_beside_whatever_else() -> None:
    groups = ["sword, direct", "sword, direct", "sword, implicit", "balloon, german"]
    found = scored(groups, [SWORD, SWORD, ARMED, SWORD], [EMPTY, ARMED, BOOK, SWORD])
    assert found == {
        "samples/sword, direct": (0.5, 2),
        "samples/sword, implicit": (0.0, 1),
        "samples/balloon, german": (0.0, 1),
        "samples/broken": (0.0, 4),
    }


def test_two_figures_count_where_both_items_are_seen() -> None:
    found = scored(["two figures"] * 2, [ARMED, ARMED], [ARMED, SWORD])
    assert found["samples/two figures, item"] == (0.5, 2)
    assert found["samples/two figures, subject"] == (1.0, 2)


def test_negations_count_where_nothing_is_held() -> None:
    assert scored(["negation"] * 2, [EMPTY, EMPTY], [EMPTY, SWORD])["samples/negation, none"] == (0.5, 2)


def test_broken_samples_are_counted_over_all_groups() -> None:
    every = [Asked("figures", SWORD, "", 0), Asked("negation", EMPTY, "", 1)]
    reading = reading_of([SWORD, EMPTY])
    reading.labels["state"][1] = 1
    assert sample_figures(every, reading)["samples/broken"].value == 0.5


def test_samples_come_in_batches_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def paint(_pipe: Any, prompts: list[str], seeds: list[int]) -> torch.Tensor:
        assert [int(prompt) for prompt in prompts] == seeds
        return torch.tensor(seeds).float().view(-1, 1, 1, 1).expand(-1, 3, 2, 2)

    monkeypatch.setattr(sampling, "sample", paint)
    done: list[int] = []
    found = sampling.sample_all(None, [str(i) for i in range(7)], list(range(7)), 3, done.append)
    assert found[:, 0, 0, 0].tolist() == list(range(7))
    assert done == [3, 6, 7]


@pytest.mark.slow
def test_the_shipped_model_draws_the_sword_under_every_wording(shipped: Path) -> None:
    pipe, judge = load_pipeline(shipped, CPU), load_judge(shipped, CPU, "judge_b")
    groups = {f"sword, {wording}" for wording in WORDINGS}
    every = [one for one in held_out_prompts(seed=5, count=4) if one.group in groups]
    reading = read(
        judge,
        sampling.sample_all(pipe, [a.prompt for a in every], [a.seed for a in every], 16, lambda _done: None),
        32,
    )
    assert reading.items[:, ITEMS.index("sword")].float().mean() >= 0.8
