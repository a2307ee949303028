"""Two judges of different build read the same attributes; items are read one by one, as a picture may show two."""

from __future__ import annotations

import random

import pytest
import torch

from duo_unlearn.mini.model.judge_net import (
    JUDGES,
    AttentionJudgeNet,
    JudgeNet,
    attribute_ids,
    item_marks,
    items_shown,
    probabilities,
)
from duo_unlearn.mini.world.scenes import ATTRIBUTES, ITEMS, Person, Scene, random_scene

NAMES = list(JUDGES)


def likely(**items: float) -> torch.Tensor:
    """One row of the items' probabilities; those not named have 0.01."""
    return torch.tensor([[items.get(item, 0.01) for item in ITEMS]])


def shown(**items: float) -> list[str]:
    (row,) = items_shown(likely(**items)).tolist()
    return [item for item, mark in zip(ITEMS, row, strict=True) if mark]


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_judge_has_a_head_for_each_attribute(name: str) -> None:
    logits = JUDGES[name]()(torch.zeros(2, 3, 64, 64))
    assert {attribute: tuple(rows.shape) for attribute, rows in logits.items()} == {
        attribute: (2, len(labels)) for attribute, labels in ATTRIBUTES.items()
    }


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_reading_does_not_depend_on_the_pictures_beside_it(name: str) -> None:
    torch.manual_seed(0)
    judge, pixels = JUDGES[name]().eval(), torch.rand(4, 3, 64, 64) * 2 - 1
    together, alone = judge(pixels), judge(pixels[2:3])
    for attribute in ATTRIBUTES:
        assert torch.allclose(together[attribute][2:3], alone[attribute], atol=1e-4)
        assert not torch.allclose(together[attribute][1:2], alone[attribute], atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_judge_sees_where_things_are(name: str) -> None:
    torch.manual_seed(0)
    judge, pixels = JUDGES[name]().eval(), torch.zeros(2, 3, 64, 64)
    pixels[0, :, :8, :8], pixels[1, :, 40:48, 40:48] = 1, 1
    readings = judge(pixels)["item"]
    assert not torch.allclose(readings[0], readings[1], atol=1e-4)


def test_the_two_judges_share_no_kind_of_layer_in_their_trunks() -> None:
    assert list(JUDGES.values()) == [JudgeNet, AttentionJudgeNet]
    kinds = []
    for network in JUDGES.values():
        layers = [part for part in network().trunk.modules() if not list(part.children())]
        kinds.append({type(part) for part in layers if list(part.parameters())})
    assert kinds[0]
    assert kinds[1]
    assert not kinds[0] & kinds[1]


def test_the_labels_of_other_attributes_share_one_and_items_stand_for_themselves() -> None:
    torch.manual_seed(0)
    logits = {name: torch.randn(3, len(labels)) for name, labels in ATTRIBUTES.items()}
    found = probabilities(logits)
    assert torch.allclose(found["item"], 1 / (1 + (-logits["item"]).exp()))
    for name in set(ATTRIBUTES) - {"item"}:
        assert torch.allclose(found[name].sum(dim=1), torch.ones(3))
        assert torch.equal(found[name].argmax(dim=1), logits[name].argmax(dim=1))


def test_an_item_of_at_least_one_half_is_shown() -> None:
    assert shown(sword=0.5) == ["sword"]
    assert shown(sword=0.9, none=0.49) == ["sword"]


def test_two_items_are_shown_together() -> None:
    assert shown(sword=0.8, balloon=0.6) == ["sword", "balloon"]


def test_none_stands_alone() -> None:
    assert shown(none=0.9) == ["none"]
    assert shown(none=0.9, sword=0.6) == ["sword"]


@pytest.mark.parametrize("likeliest", ["none", "sword", "broom"])
def test_where_nothing_reaches_one_half_the_likeliest_is_shown(likeliest: str) -> None:
    assert shown(**{"none": 0.3, "sword": 0.3, "broom": 0.3, likeliest: 0.4}) == [likeliest]


def test_every_row_is_read_by_itself_and_left_as_it_is() -> None:
    rows = torch.cat([likely(none=0.9, sword=0.6), likely(oar=0.2), likely(none=0.7)])
    before = rows.clone()
    found = items_shown(rows)
    assert found.dtype == torch.bool
    assert [[ITEMS[i] for i in row.nonzero().flatten()] for row in found] == [["sword"], ["oar"], ["none"]]
    assert torch.equal(rows, before)


def test_attribute_ids_point_at_the_labels_of_the_left_figure() -> None:
    scenes = [
        Scene("king", "red", "sword", "snow", other=Person("robot", "green", "oar")),
        Scene("boat", "purple", "none", "beach"),
    ]
    ids = attribute_ids(scenes)
    assert set(ids) == set(ATTRIBUTES)
    for name in ("item", "subject", "colour", "place"):
        assert [ATTRIBUTES[name][i] for i in ids[name]] == [getattr(scene, name) for scene in scenes]
    assert [ATTRIBUTES["state"][i] for i in ids["state"]] == ["whole", "whole"]


@pytest.mark.parametrize(
    ("left", "right", "items"),
    [
        ("sword", None, ["sword"]),
        ("none", None, ["none"]),
        ("none", "none", ["none"]),
        ("none", "sword", ["sword"]),
        ("oar", "sword", ["sword", "oar"]),
        ("oar", "oar", ["oar"]),
    ],
)
def test_the_marks_are_the_items_of_all_figures(left: str, right: str | None, items: list[str]) -> None:
    scene = Scene("king", "red", left, "snow", other=Person("robot", "green", right) if right else None)
    filler = random_scene(random.Random(0), items=["flower"])
    marks = item_marks([filler, scene])
    assert marks.shape == (2, len(ITEMS))
    assert [ITEMS[i] for i in marks[1].nonzero().flatten()] == items
    assert marks.sum().item() == 1 + len(items)
