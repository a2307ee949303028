"""HiRM's loss and targets by numbers, and that it trains the first layer of the text encoders alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.weights import WeightEdit, own_weights
from duo_unlearn.erasers.hirm import HIRM, HirmLoss, concept_target, distance, first_layers, random_target
from duo_unlearn.families.conditioning import Conditioning
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.families.registry import FAMILIES

from .small_sdxl import context_on, small_sdxl


@pytest.fixture(scope="module", params=["mini", "sdxl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    if request.param == "mini":
        return load_model("mini", torch.device("cpu"))
    return small_sdxl(tmp_path_factory.mktemp("sdxl"))


def states(*rows: list[list[float]], pooled: list[list[float]] | None = None) -> Conditioning:
    return Conditioning(torch.tensor(rows), None if pooled is None else torch.tensor(pooled))


def test_states_lose_the_concepts_vector_from_the_concept_on() -> None:
    unsafe = states([[1, 0], [3, 0], [3, 4]], [[1, 0], [7, 7], [5, 2.0]], pooled=[[2.0, 0.0], [0.0, 2.0]])
    safe = states([[1, 0], [1, 0], [1, 0]], [[1, 0], [1, 0], [9, 9.0]], pooled=[[0.0, 0.0], [0.0, 0.0]])
    # Rows 1, 2 of the first prompt against rows 1, 2; row 2 of the second against row 1.
    # At the concept (2, 0) and (4, 2), so v = (3, 1); one row after it (2, 4).
    found = concept_target(unsafe, safe, [(1, 1), (2, 1)], 1.0)
    assert torch.equal(found.text, torch.tensor([[[1.0, 0], [0, -1], [1, 0]], [[1, 0], [7, 7], [2, 1]]]))
    assert found.pooled is not None
    assert torch.equal(found.pooled, torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    # ‖v‖²: 10, 20 and 10 in three of six rows, and 2 for the pooled vectors.
    assert float(distance(unsafe, found)) == pytest.approx(40 / 6 + 2)


def test_random_targets_have_one_length_and_leave_what_comes_before_the_concept() -> None:
    unsafe = Conditioning(torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)))
    places = [(1, 1), (2, 2), (1, 1)]
    found = random_target(unsafe, places, 500.0, seed=1).text
    assert torch.equal(found[:, 0], unsafe.text[:, 0])
    assert torch.equal(found[1, 1], unsafe.text[1, 1])
    torch.testing.assert_close(found[:, 2:].norm(dim=-1), torch.full((3, 2), 500.0))
    assert torch.equal(found[0, 1:], found[2, 1:])
    assert not torch.equal(found[0, 1], found[0, 2])
    assert not torch.equal(found, random_target(unsafe, places, 500.0, seed=2).text)


@pytest.mark.parametrize("options", [{"target": "concept", "strength": 2.0}, {"target": "random"}])
def test_the_loss_at_the_start_is_the_distance_to_the_target(
    model: Model, tmp_path: Path, options: dict[str, Any]
) -> None:
    context = context_on(model, tmp_path, "hirm", batch=64, **options)
    loss = HirmLoss(context)
    unsafe = model.condition(sorted(p.unsafe_prompt for p in context.pairs if p.unsafe_prompt))
    text = (unsafe.text - loss.target.text).square().sum(dim=-1).mean()
    if unsafe.pooled is None:
        expected = text
    else:
        assert loss.target.pooled is not None
        expected = text + (unsafe.pooled - loss.target.pooled).square().sum(dim=-1).mean()
    torch.testing.assert_close(loss(0), expected)


def test_only_the_first_layers_change(model: Model, tmp_path: Path) -> None:
    parts = [text for _, text in model.kind.token_encoders]
    before = {part: {k: v.clone() for k, v in own_weights(model, part).items()} for part in parts}
    context = context_on(model, tmp_path, "hirm", steps=2)
    assert HIRM.erase(context, "hirm") == "done"
    edit = read_edit(context.run.edit("hirm"), "hirm")
    assert isinstance(edit, WeightEdit)
    assert (edit.kind, list(edit.parts)) == ("weights", parts)
    assert set(edit.changes) <= set(first_layers(model))
    assert edit.provenance["passes"] == 0
    with edit.on(model):
        changed = {
            f"{part}.{name}" for part in parts for name, value in own_weights(model, part).items()
            if not torch.equal(value, before[part][name])
        }  # fmt: skip
    assert changed == set(edit.changes)
    assert all(".layers.0." in name for name in changed)
    assert not any("embedding" in name for name in changed)
    for part in parts:  # in both encoders something was trained, and all is put back
        assert any(name.startswith(f"{part}.") for name in changed)
        now = own_weights(model, part)
        assert all(torch.equal(now[name], value) for name, value in before[part].items())
        assert not any(value.requires_grad for value in now.values())


def test_the_loss_falls(tmp_path: Path) -> None:
    context = context_on(load_model("mini", torch.device("cpu")), tmp_path, "hirm", steps=20, lr=1e-3)
    HIRM.erase(context, "hirm")
    losses = [json.loads(line)["loss"] for line in context.run.metrics("hirm").read_text().splitlines()]
    assert losses[-1] < 0.7 * losses[0]


def test_families_that_read_more_than_clip_cannot_have_it() -> None:
    told = {name for name in FAMILIES.names() if HIRM.why_not(FAMILIES.get(name)) is None}
    assert told == {"mini", "sd1", "sd2", "sdxl"}
    assert "T5" in str(HIRM.why_not(FAMILIES.get("sd3")))
