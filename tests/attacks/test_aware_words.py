"""What guards are told of the rows of a search: the tokens that it has at that step, and none where it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from duo_unlearn.arena.guarded_reader import GuardedReader
from duo_unlearn.attacks import p4d, soft_prompt, tina, unlearn_diff
from duo_unlearn.attacks.interface import Target
from duo_unlearn.families.interface import Guidance, Hooks, Inverted, SampleRequest, Tokens
from duo_unlearn.families.inversion import TEMPLATES, invert
from duo_unlearn.families.ode import Ode
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import Scene

from ..guards.small import context_of
from .prompt_cut import asked, target

SCALE = 5.0
Requests = list[SampleRequest]


@pytest.fixture(scope="module")
def loaded() -> Target:
    return target(cut=False, steps=2)


@pytest.fixture
def plain(loaded: Target) -> Iterator[Target]:
    yield loaded
    loaded.model.hooks = []


@pytest.fixture
def witness(plain: Target) -> tuple[Target, Requests]:
    """A target whose searches are aware of a guard that does nothing, and what it was told."""
    said: Requests = []

    def conditioning(requests: Sequence[SampleRequest], guidance: Guidance) -> Guidance:
        assert len(requests) == len(guidance.positive.text)
        said.extend(requests)
        return guidance

    plain.model.hooks = [Hooks(conditioning=conditioning)]
    on = plain._replace(reader=GuardedReader(plain.model, SCALE))
    said.clear()
    return on, said


def p4d_of(on: Target) -> p4d._Search:
    prompts = asked(2)
    images = [draw(Scene("knight", colour, "sword", "snow")) for colour in ("red", "blue")]
    rows = p4d.templates(on.model, prompts, p4d.Budget(1, tokens=4))
    return p4d._Search(on, prompts, [3, 4], images, rows, 0.1)


def unlearn_diff_of(on: Target) -> unlearn_diff._Search:
    return unlearn_diff._Search(on, [prompt.text for prompt in asked(2)], [3, 4], on.moments().mean[:2], 5, 0.01)


def ids_of(requests: Requests) -> Tensor:
    """The token ids that guards were told, (prompt, token). No vector stands in a token's place."""
    words = [request.words for request in requests]
    assert all(isinstance(one, Tokens) and one.rows is None for one in words)
    return torch.cat([one.ids for one in words if isinstance(one, Tokens)])


def test_of_p4d_it_is_the_tokens_nearest_to_its_vectors(witness: tuple[Target, Requests]) -> None:
    on, said = witness
    search = p4d_of(on)
    whole = search.whole()
    search.step()
    assert torch.equal(ids_of(said), whole)


def test_of_unlearndiffatk_it_is_the_tokens_whose_vectors_the_forward_pass_reads(
    witness: tuple[Target, Requests], monkeypatch: pytest.MonkeyPatch
) -> None:
    on, said = witness
    search, condition, read = unlearn_diff_of(on), on.model.condition, []

    def recorder(words: Sequence[str] | Tokens | Inverted) -> object:
        if isinstance(words, Tokens):
            read.append(words)
        return condition(words)

    monkeypatch.setattr(on.model, "condition", recorder)
    search.step(500)
    ids, (forward,) = ids_of(said), read
    assert forward.rows is not None
    drawn = on.model.pipe.text_encoder.get_input_embeddings().weight[ids[:, 1:6]]
    torch.testing.assert_close(drawn, forward.rows)
    assert torch.equal(ids[:, 6:], search.ids[:, 6:])
    assert len(set(ids[:, 1:6].flatten().tolist())) > 5  # of chance, in each prompt


def test_of_an_inversion_it_is_its_text_and_vector_and_of_tina_the_empty_prompt(
    witness: tuple[Target, Requests],
) -> None:
    on, said = witness
    vector = invert(on.model, on.moments(), steps=1, batch=2, seed=0, quiet=True, reader=on.reader)
    assert len(said) == 2
    for request in said:
        assert isinstance(request.words, Inverted)
        assert request.words.texts[0] in TEMPLATES
        assert torch.equal(request.words.vector.detach(), vector)
    said.clear()
    tina.step_back(on, Ode.of(on.model.noise, 4), 2, on.moments().mean[:2], 1, 1e-3)
    assert {request.words for request in said} == {""}


def test_of_a_soft_prompt_it_is_no_tokens(witness: tuple[Target, Requests]) -> None:
    on, said = witness
    soft_prompt.Soft(on).error(torch.Generator().manual_seed(0), 3)
    assert ids_of(said).shape == (3, 0)


def gradient_of_p4d(on: Target) -> Tensor:
    search = p4d_of(on)
    search.step()
    assert search.vectors.grad is not None
    return search.vectors.grad


def gradient_of_unlearndiffatk(on: Target) -> Tensor:
    search = unlearn_diff_of(on)
    search.step(990)
    assert search.weights.grad is not None
    return search.weights.grad


def vector_of_inversion(on: Target) -> Tensor:
    return invert(on.model, on.moments(), steps=2, batch=2, seed=0, quiet=True, reader=on.reader)


@pytest.mark.parametrize("found", [gradient_of_p4d, gradient_of_unlearndiffatk, vector_of_inversion])
def test_a_search_that_is_unaware_of_safree_is_the_same_as_without_it_and_an_aware_one_is_not(
    plain: Target, found: Callable[[Target], Tensor], tmp_path: Path
) -> None:
    before = found(plain)
    guard = GUARDS.get("safree").build(
        {"steps": 49, "middle": -10, "mode": "all-rows", "alpha": 0.0}, context_of(plain.model, tmp_path)
    )
    plain.model.hooks = [guard]
    assert torch.equal(found(plain), before)
    aware = plain._replace(reader=GuardedReader(plain.model, SCALE))
    assert not torch.allclose(found(aware), before, rtol=1e-2, atol=0)
