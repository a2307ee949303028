"""Searches beside their authors' algorithms, written down again here step by step, on the mini model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import pytest
import torch
from PIL import Image
from torch import Tensor

from duo_unlearn.attacks import p4d, unlearn_diff
from duo_unlearn.attacks.interface import Attack, Findings, Target
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.families.interface import SampleRequest, Tokens
from duo_unlearn.families.tokens import plain_tokens, sequence, vocabulary, word_ids
from duo_unlearn.records import Prompt
from duo_unlearn.runs.search_state import NO_STATE

from ..slow import slow
from .prompt_cut import asked, blind, target

PROMPT, SEED = Prompt("a red knight holding a sword in the snow", {}), 3


@pytest.fixture(scope="module")
def whole() -> Target:
    return target(cut=False, steps=3)


def find(attack: str, on: Target, budget: Any, prompts: Sequence[Prompt] = (PROMPT,)) -> Findings:
    seeds = list(range(SEED, SEED + len(prompts)))
    return ATTACKS.get(attack).find(on, list(prompts), seeds, budget, lambda _share: None, NO_STATE)


def by_halving(row: Tensor) -> Tensor:
    """The nearest point of the simplex, by bisection of what is taken off every entry."""
    low, high = float(row.min()) - 1, float(row.max())
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if float((row - middle).clamp(0, 1).sum()) > 1 else (low, middle)
    return (row - high).clamp(0, 1)


@pytest.mark.slow
def test_unlearndiffatk_walks_as_published(whole: Target) -> None:
    """One prompt, one Adam: multinomial draw, one-hot forward, gradient clamped to [-1, 1], projection."""
    model, tokens, steps = whole.model, 3, 4
    budget = unlearn_diff.Budget(timesteps=1, steps=steps, tokens=tokens)
    found = find("unlearndiffatk", blind(whole), budget)
    assert found.findings[0].ids is not None

    plain, generator = plain_tokens(model), torch.Generator().manual_seed(SEED ^ whole.seed)
    table = vocabulary(model)[plain].float()
    weights = torch.full((tokens, len(plain)), 1 / len(plain), requires_grad=True)
    optimizer = torch.optim.Adam([weights], lr=0.01, weight_decay=0.1)
    latents = model.encode_images(whole.originals([PROMPT.text], [SEED])).mean
    ids = torch.tensor([sequence(model, [int(plain[0])] * tokens + word_ids(model, PROMPT.text))])
    for _ in range(steps):
        drawn = torch.multinomial(weights.detach(), 1, generator=generator).flatten()
        hard = torch.zeros(tokens, len(plain)).scatter_(1, drawn[:, None], 1.0).requires_grad_(True)
        eps = torch.randn(latents.shape, generator=generator)
        t = torch.tensor([10])
        read = model.condition(Tokens(ids, (hard @ table)[None]))
        predicted = model.predict(model.noise.add_noise(latents, eps, t), t, read)
        loss = torch.nn.functional.mse_loss(predicted, eps)
        weights.grad = torch.nn.functional.hardtanh(torch.autograd.grad(loss, hard)[0])
        optimizer.step()
        weights.data = torch.stack([by_halving(row) for row in weights.data])
    prefix = plain[weights.argmax(dim=1)].tolist()
    assert found.findings[0].ids[1 : 1 + tokens] == prefix
    assert found.findings[0].facts["loss"] == pytest.approx(float(loss.detach()), rel=1e-4)


def test_unlearndiffatk_begins_uniform_and_draws_anew(whole: Target) -> None:
    latents = torch.zeros(1, 4, 16, 16)
    search = unlearn_diff._Search(whole, [PROMPT.text], [SEED], latents, 5, 0.01)
    assert float(search.weights.detach().max()) == float(search.weights.detach().min())
    assert float(search.weights.detach().sum(dim=-1).mean()) == pytest.approx(1.0)
    draws = [search.draw([0]).argmax(dim=-1) for _ in range(3)]
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[1], draws[2])


def test_unlearndiffatk_looks_at_the_prompt_alone_first(whole: Target) -> None:
    prompts, seen = asked(2), list[int]()

    def detect(images: Sequence[Image.Image | None]) -> list[bool]:
        seen.append(len(images))
        return [len(seen) == 1 and i == 0 for i in range(len(images))]  # the first prompt, before any search

    budget = unlearn_diff.Budget(timesteps=1, steps=1, tokens=3)
    first, second = find("unlearndiffatk", whole._replace(detect=detect), budget, prompts).findings
    assert first.ids == sequence(whole.model, word_ids(whole.model, prompts[0].text))
    assert (first.text, first.facts["won"]) == (prompts[0].text, 1.0)
    assert seen == [2, 1]
    assert second.ids is not None
    assert len(second.text.split()) > len(prompts[1].text.split())


@pytest.mark.parametrize(
    ("words", "places"),
    [
        (1, [-1, 1]),
        (2, [-1, 2]),
        (3, [-1, 3, -1]),
        (4, [-1, 3, -1, 1]),
        (6, [-1, 3, -1, 3, -1]),
        (7, [-1, 3, -1, 3, -1, 1]),
    ],
)
def test_p4d_k_has_a_free_token_before_every_third_word(whole: Target, words: int, places: list[int]) -> None:
    text = " ".join(["a red knight with a sword in the snow"] * 2).split()[:words]
    (template,) = p4d.templates(whole.model, [Prompt(" ".join(text), {})], p4d.Budget(1, every=3))
    ids = iter(word_ids(whole.model, " ".join(text)))
    assert template == [x for place in places for x in ([-1] if place == -1 else [next(ids) for _ in range(place)])]
    assert template.count(-1) == words // 3 + 1


@pytest.mark.parametrize("attack", ["p4d", *slow(["p4d-k"])])
def test_p4d_keeps_the_most_similar_image_and_asks_no_detector(whole: Target, attack: str) -> None:
    def asked_for(_images: object) -> NoReturn:
        raise AssertionError("the detector was asked")

    given = iter([0.2, 0.9, 0.5])
    shown: list[list[int] | None] = []

    def similarity(_images: object, others: Sequence[Image.Image]) -> list[float]:
        return [next(given)] * len(others)

    def sample(requests: Sequence[SampleRequest]) -> list[Image.Image | None]:
        shown.extend(r.words.ids[0].tolist() if isinstance(r.words, Tokens) else None for r in requests)
        return list(whole.sample(requests))

    budget = p4d.Budget(5, check_every=2, every=3) if attack == "p4d-k" else p4d.Budget(5, check_every=2, tokens=4)
    told = whole._replace(detect=asked_for, similarity=similarity, sample=sample)
    (finding,) = find(attack, told, budget).findings
    assert len(shown) == 3  # before steps 0, 2 and 4
    assert finding.ids == shown[1]
    assert finding.facts["similarity"] == pytest.approx(0.9)
    published: Attack = ATTACKS.get(attack)
    assert not published.asks_detector
    assert "clip" in published.needs
    assert ATTACKS.get(f"{attack}-detector").asks_detector


def test_the_similarity_of_images_is_highest_with_themselves(whole: Target) -> None:
    images = [image for image in whole.sample([SampleRequest(p.text, i) for i, p in enumerate(asked(3))]) if image]
    same, other = whole.similarity(images, images), whole.similarity(images, images[1:] + images[:1])
    assert same == pytest.approx([1.0] * 3, abs=1e-5)
    assert all(a > b for a, b in zip(same, other, strict=True))


@pytest.mark.parametrize(
    ("name", "text", "strength"),
    [
        ("image-to-image", PROMPT.text, 0.5), ("image-to-image-empty", "", 0.5),
        ("image-to-image-30", PROMPT.text, 0.3), ("image-to-image-empty-30", "", 0.3),
    ],
)  # fmt: skip
def test_image_to_image_under_the_prompt_and_under_nothing(
    whole: Target, name: str, text: str, strength: float
) -> None:
    (finding,) = find(name, whole, ATTACKS.get(name).budgets["paper"]).findings
    assert (finding.text, finding.strength, finding.ids) == (text, strength, None)
