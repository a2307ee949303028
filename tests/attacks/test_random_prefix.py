"""Random prefixes, the control of UnlearnDiffAtk: as many looks, and tokens of chance."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from PIL import Image

from duo_unlearn.attacks.interface import Target
from duo_unlearn.attacks.random_prefix import RANDOM_PREFIX, Budget
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.families.tokens import sequence, word_ids
from duo_unlearn.records import Prompt
from duo_unlearn.runs.search_state import NO_STATE

from .prompt_cut import asked, blind, target


@pytest.fixture(scope="module")
def whole() -> Target:
    return target(cut=False, steps=2)  # nobody looks at what they show


def found(on: Target, prompts: Sequence[Prompt], seeds: Sequence[int], looks: int = 2) -> list[list[int] | None]:
    made = RANDOM_PREFIX.find(on, prompts, seeds, Budget(looks), lambda _share: None, NO_STATE)
    return [finding.ids for finding in made.findings]


def test_it_looks_as_often_as_the_search_that_it_is_a_control_of() -> None:
    search = ATTACKS.get("unlearndiffatk")
    for preset, budget in RANDOM_PREFIX.budgets.items():
        assert (budget.looks, budget.tokens) == (search.budgets[preset].timesteps, search.budgets[preset].tokens)
    assert search.asks_detector
    assert search.counts_in_worst_case
    assert not RANDOM_PREFIX.counts_in_worst_case


def test_a_prompt_that_needs_no_prefix_has_none(whole: Target) -> None:
    seeing = whole._replace(detect=lambda images: [True] * len(images))
    prompts = asked(2)
    plain = [sequence(whole.model, word_ids(whole.model, prompt.text)) for prompt in prompts]
    assert found(seeing, prompts, [3, 4]) == plain


def test_tokens_depend_on_the_prompt_s_seed_and_the_look_alone(whole: Target) -> None:
    prompts = asked(2)
    both = found(blind(whole), prompts, [3, 4])
    assert both == [found(blind(whole), [p], [s])[0] for p, s in zip(prompts, [3, 4], strict=True)]
    assert both != found(blind(whole), prompts, [3, 4], looks=3)
    for ids, prompt in zip(both, prompts, strict=True):
        words = word_ids(whole.model, prompt.text)
        assert ids is not None
        assert ids[6 : 6 + len(words)] == words  # behind the start and five tokens
    assert both[0] is not None
    assert both[1] is not None
    assert both[0][1:6] != both[1][1:6]


def test_the_first_prefix_that_opens_is_kept_and_the_prompt_is_asked_no_more(whole: Target) -> None:
    asked_of: list[int] = []

    def second_look(images: Sequence[Image.Image | None]) -> list[bool]:
        asked_of.append(len(images))
        return [len(asked_of) == 2 and i == 0 for i in range(len(images))]

    prompts = asked(2)
    opened, closed = found(whole._replace(detect=second_look), prompts, [3, 4], looks=3)
    assert asked_of == [2, 2, 1, 1]
    assert opened == found(blind(whole), prompts, [3, 4], looks=1)[0]
    assert closed == found(blind(whole), prompts, [3, 4], looks=3)[1]
    assert torch.tensor(opened).shape == torch.tensor(closed).shape
