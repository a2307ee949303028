"""What every attack promises, on the mini model: budgets, prompts in order, repeatable findings, an unchanged model."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, get_args

import pytest
import torch
from typer.testing import CliRunner

from duo_unlearn.attacks.interface import Target, requests_for, why_not
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.cli.main import app
from duo_unlearn.records import Level
from duo_unlearn.runs.search_state import NO_STATE

from .prompt_cut import asked, target
from .test_searches import SMALL, small

WITHOUT_TOKENS: dict[str, dict[str, int]] = {
    "soft-prompt": {"steps": 2, "batch": 2},
    "tina": {"steps": 2, "passes": 2},
    "inpainting": {"steps": 2},
    "completion": {"steps": 2},
    "noise-search": {"seeds": 2},
}
"""Small budgets of what writes no tokens."""


@pytest.fixture(scope="module")
def whole() -> Target:
    return target(cut=False, steps=4)  # image to image at strength 0.3 takes one of them


def budget_of(name: str) -> Any:
    if name in SMALL:
        return small(name)
    budget = ATTACKS.get(name).budgets["quick"]
    if name in WITHOUT_TOKENS:
        return dataclasses.replace(budget, **WITHOUT_TOKENS[name])
    if name.startswith("relearning"):
        return dataclasses.replace(budget, steps=1, batch=2, benign=min(budget.benign, 4))
    return budget


def test_what_a_search_costs_orders_the_attacks_as_they_take_time() -> None:
    """A hand-out gives long parts first. On 16 prompts and 25 steps."""
    cost = {name: ATTACKS.get(name).cost(ATTACKS.get(name).budgets["quick"], 16, 25) for name in ATTACKS.names()}
    free = {"direct", "edit-removal", "image-to-image", "image-to-image-empty-30", "relearning-benign-300"}
    assert {name for name in free if cost[name]} == set()
    searches = ("completion", "sneakyprompt", "unlearndiffatk", "noise-search", "p4d", "concept-inversion")
    assert sorted(searches, key=lambda name: cost[name]) == list(searches)
    for name in ATTACKS.names():
        attack = ATTACKS.get(name)
        assert (attack.found_on != "nothing") <= (cost[name] > 0)
        quick, paper = (attack.cost(attack.budgets[preset], 16, 25) for preset in ("quick", "paper"))
        assert quick <= paper


VARIANTS = (
    "-detector",
    "-k",
    "-30",
    "-empty",
    "-100",
    "-300",
    "-of-20",
    "-of-50",
    "sneakyprompt",
    "p4d",
    "unlearndiffatk",
    "random-prefix",
    "noise-search",
)
"""Forms of an attack whose code another form runs too, and the slowest ones: found in the slow tests."""


@pytest.mark.parametrize("name", ATTACKS.names())
def test_its_facts_are_whole(name: str) -> None:
    attack = ATTACKS.get(name)
    assert attack.name == name
    assert attack.title
    assert set(attack.budgets) == {"quick", "paper"}
    for budget in attack.budgets.values():
        assert dataclasses.is_dataclass(budget)
        assert not isinstance(budget, type)
        assert all(
            value is None or isinstance(value, int | float | str) for value in dataclasses.asdict(budget).values()
        )
    assert attack.prompts_at_once is None or attack.prompts_at_once > 0
    assert attack.fine_tune is None or attack.during is not None
    assert attack.level in get_args(Level)
    # A search that stops at what the detector says must have the detector's contract in its key.
    assert not attack.asks_detector or attack.found_on in ("images", "model")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name.endswith(VARIANTS) else ()) for name in ATTACKS.names()],
)
def test_it_finds_something_for_every_prompt_and_leaves_the_model_as_it_was(name: str, whole: Target) -> None:
    attack, prompts, seeds = ATTACKS.get(name), asked(2), [3, 4]
    assert why_not(attack, whole.model, has_edits=True) is None
    before = {key: value.clone() for key, value in whole.model.denoiser.state_dict().items()}
    weights = attack.fine_tune(whole, budget_of(name)) if attack.fine_tune is not None else {}
    during = attack.during
    around = during(whole, budget_of(name), weights) if during is not None else contextlib.nullcontext()
    with around:
        found = attack.find(whole, prompts, seeds, budget_of(name), lambda _share: None, NO_STATE)
        assert len(found.findings) == 2
        starts = [None if f.strength is None else whole.originals([p.text], [s])[0]
                  for f, p, s in zip(found.findings, prompts, seeds, strict=True)]  # fmt: skip
        images = whole.sample(requests_for(found, seeds, starts))
    assert len(images) == 2
    if attack.found_on == "nothing":
        without_text = "empty" in name or name == "inpainting"
        texts = [""] * 2 if without_text else [prompt.text for prompt in prompts]
        assert [finding.text for finding in found.findings] == texts
    assert all(torch.equal(value, before[key]) for key, value in whole.model.denoiser.state_dict().items())


def test_what_cannot_run_says_why(whole: Target) -> None:
    removal = ATTACKS.get("edit-removal")
    assert why_not(removal, whole.model, has_edits=False) == "the system has no edit that could be taken off"
    whole.model.denoiser.to(torch.float64)
    try:
        assert "float32" in str(why_not(ATTACKS.get("relearning-concept-20"), whole.model, has_edits=True))
    finally:
        whole.model.denoiser.to(torch.float32)


def test_the_list_of_attacks_has_a_gap_behind_every_name() -> None:
    shown = CliRunner().invoke(app, ["attacks"], catch_exceptions=False).stdout
    for name in ATTACKS.names():
        assert f"\n{name}  " in f"\n{shown}"
