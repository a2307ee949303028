"""What token searches share: the concept's direction, and the state of prompts that are attacked side by side."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from duo_unlearn.attacks import unlearn_diff
from duo_unlearn.attacks.interface import Target
from duo_unlearn.attacks.search import SideBySide, concept_vector
from duo_unlearn.runs.search_state import SearchState

from .prompt_cut import target


@pytest.fixture(scope="module")
def whole() -> Target:
    return target(cut=False)


def test_a_state_is_read_where_a_prompt_won_before_the_first_step(whole: Target, tmp_path: Path) -> None:
    """It has no loss, and nan is no number that a file may hold: the search would begin anew."""

    def fresh() -> tuple[SideBySide, Tensor, torch.optim.Optimizer, torch.Generator]:
        searched = torch.ones(2, requires_grad=True)
        return SideBySide(whole, [3, 4]), searched, torch.optim.Adam([searched]), torch.Generator()

    path = tmp_path / "state.safetensors"
    search, searched, optimizer, generator = fresh()
    search.kept, search.loss = {0: [1, 2]}, torch.tensor([float("nan"), 0.5])
    searched.grad = torch.ones(2)
    optimizer.step()
    SearchState(path, "k", every=0).offer(7, lambda: search.tensors(searched, optimizer, generator))
    again, moved, other, others = fresh()
    assert again.restored(SearchState(path, "k"), moved, other, others) == 7
    assert torch.equal(moved, searched)
    assert again.kept == search.kept
    torch.testing.assert_close(again.loss, search.loss, equal_nan=True, rtol=0, atol=0)


def test_a_prompt_that_won_before_the_first_step_tells_no_loss(whole: Target) -> None:
    search = SideBySide(whole, [3, 4])
    search.kept, search.loss = {0: [1, 2]}, torch.tensor([float("nan"), 0.5])
    assert [search.facts(i) for i in range(2)] == [{"checks": 0, "won": 1}, {"loss": 0.5, "checks": 0, "won": 0}]


def test_the_concepts_direction_is_of_pairs_that_have_both_prompts(whole: Target) -> None:
    words = list(whole.contrast())
    some = whole._replace(contrast=lambda: [("", ""), *words, ("a knight holding a sword", "")])
    assert torch.equal(concept_vector(some), concept_vector(whole))


def test_more_tokens_than_a_prompt_has_room_for_are_as_many_as_it_has(whole: Target) -> None:
    """The mini model reads 40, of which two are the start and the end; a budget may name up to 75."""
    length = whole.model.pipe.tokenizer.model_max_length
    latents = torch.zeros(1, *whole.model.kind.latents.shape(whole.model.pipe, whole.model.resolution))
    search = unlearn_diff._Search(whole, ["a red knight"], [3], latents, 75, 0.01)
    search.step(500)
    (ids,) = search.whole().tolist()
    assert len(ids) == length
    assert ids[-1] == whole.model.pipe.tokenizer.eos_token_id
    assert search.sample(search.whole())
