"""The searches: their arithmetic, that they repeat themselves, and that they find what a baseline only hides."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.attacks import relearning, ring_a_bell, sneaky_prompt, unlearn_diff
from duo_unlearn.attacks.fine_tuning import Lesson, attention_weights
from duo_unlearn.attacks.interface import Finding, Findings, Preset, Target, requests_for
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.attacks.search import concept_vector
from duo_unlearn.edits.lora import attach, detach
from duo_unlearn.erasers.simulated_attack import newly_adapted
from duo_unlearn.families.denoising import predict_noised
from duo_unlearn.families.interface import Inverted, Model, SampleRequest, Tokens, joined
from duo_unlearn.families.tokens import plain_tokens, sequence, vocabulary, word_ids
from duo_unlearn.records import Prompt
from duo_unlearn.runs.search_state import NO_STATE, SearchState

from ..slow import slow_but
from .prompt_cut import asked, blind, target

SMALL: dict[str, dict[str, Any]] = {
    "unlearndiffatk": {"tokens": 3, "timesteps": 2, "steps": 2},
    "p4d": {"tokens": 4, "steps": 3, "check_every": 2},
    "p4d-k": {"steps": 3, "check_every": 2},
    "p4d-detector": {"tokens": 4, "steps": 3, "check_every": 2},
    "p4d-k-detector": {"steps": 3, "check_every": 2},
    "sneakyprompt": {"queries": 2, "hidden": 8},
    "random-prefix": {"looks": 2},
    "ring-a-bell": {"population": 12, "generations": 4, "tokens": 6},
    "concept-inversion": {"steps": 4, "batch": 2},
}


def small(name: str) -> Any:
    """The attack's quick budget, cut down."""
    return dataclasses.replace(ATTACKS.get(name).budgets["quick"], **SMALL[name])


@pytest.fixture(scope="module")
def whole() -> Target:
    return target(cut=False)


@pytest.mark.parametrize(
    ("row", "nearest"),
    # By hand: take the same off every entry that stays positive, until they sum to 1.
    [
        ([0.5, 0.8], [0.35, 0.65]),
        ([2.0, 0.0], [1.0, 0.0]),
        ([0.2, 0.2, 0.9], [0.1, 0.1, 0.8]),
        ([-1.0, 0.3, 0.7], [0, 0.3, 0.7]),
    ],
)
def test_the_nearest_point_of_the_simplex(row: list[float], nearest: list[float]) -> None:
    torch.testing.assert_close(unlearn_diff.on_simplex(torch.tensor([row])), torch.tensor([nearest]))


def test_tokens_in_place_of_a_word_are_that_word(whole: Target) -> None:
    model = whole.model
    ids = torch.tensor([sequence(model, word_ids(model, "a red knight"))])
    text = model.condition(["a red knight"]).text
    torch.testing.assert_close(model.condition(Tokens(ids)).text, text)
    other = ids.clone()
    other[0, 2] = word_ids(model, "boat")[0]
    rows = vocabulary(model)[ids[:, 2:3]]
    torch.testing.assert_close(model.condition(Tokens(other, rows, first=2)).text, text)


def test_ring_a_bell_measures_no_candidate_twice_and_finds_the_same(
    whole: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, target = whole.model, whole.model.condition(["a knight holding a sword"]).text[0] + 0.5
    measured: list[tuple[int, ...]] = []
    plain = ring_a_bell.distances

    def counted(model: Model, target: Tensor, candidates: Tensor) -> Tensor:
        measured.extend(tuple(ids) for ids in candidates.tolist())
        return plain(model, target, candidates)

    monkeypatch.setattr(ring_a_bell, "distances", counted)
    with torch.no_grad():
        ids, distance = ring_a_bell.evolve(model, target, population=16, generations=30, tokens=8, seed=1)
    assert len(set(measured)) == len(measured) < 16 + 30 * 8
    monkeypatch.setattr(ring_a_bell, "_Fitness", lambda model, target: lambda rows: plain(model, target, rows))
    with torch.no_grad():
        again, exact = ring_a_bell.evolve(model, target, population=16, generations=30, tokens=8, seed=1)
    assert again == ids
    assert exact == pytest.approx(distance, rel=1e-5)


@pytest.mark.slow
def test_ring_a_bell_beats_random_search_with_as_many_looks(whole: Target) -> None:
    model = whole.model
    with torch.no_grad():
        concept = concept_vector(whole)
        target = model.condition(["a blue king in the snow"]).text[0] + 3 * concept
        worse = [
            ring_a_bell.evolve(model, target, population=32, generations=g, tokens=16, seed=1)[1] for g in (0, 5, 200)
        ]
        generator, plain = torch.Generator().manual_seed(2), plain_tokens(model)
        looks = 32 + 16 * 200
        guesses = plain[torch.randint(0, len(plain), (looks, 16), generator=generator)]
        random = float(ring_a_bell.distances(model, target, guesses).min())
    assert worse[0] > worse[1] > worse[2]  # the best is never lost
    assert worse[2] < 0.85 * random


FAST = ("ring-a-bell", "concept-inversion")
"""Searches of a second: the others repeat themselves, and go on after a kill, in the slow tests."""


@pytest.mark.parametrize("name", slow_but(sorted(SMALL), FAST))
def test_a_search_repeats_itself(name: str, whole: Target) -> None:
    prompts, seeds = asked(2), [3, 4]
    shares: list[float] = []
    find = ATTACKS.get(name).find
    first, again = (find(blind(whole), prompts, seeds, small(name), shares.append, NO_STATE) for _ in range(2))
    assert first.findings == again.findings
    assert all(torch.equal(value, again.tensors[key]) for key, value in first.tensors.items())
    assert all(0 <= share <= 1 for share in shares)
    length = whole.model.pipe.tokenizer.model_max_length
    if name != "concept-inversion":
        assert all(finding.ids is not None and len(finding.ids) == length for finding in first.findings)
    assert all(parameter.grad is None for parameter in whole.model.denoiser.parameters())


class Killed(Exception):
    """A search that is killed after it has written its state."""


class Dying(SearchState):
    """A state that is written at every step, and after which the search dies once."""

    def __init__(self, path: Path, at: int) -> None:
        super().__init__(path, "k", every=0)
        self.at = at

    def offer(self, step: int, tensors: Any) -> None:
        super().offer(step, tensors)
        if step == self.at:
            raise Killed


@pytest.mark.parametrize("name", slow_but(sorted(SMALL), FAST))
def test_a_killed_search_goes_on_bit_for_bit(name: str, whole: Target, tmp_path: Path) -> None:
    prompts, seeds, find = asked(2)[: 1 if name == "ring-a-bell" else 2], [3, 4], ATTACKS.get(name).find
    seeds = seeds[: len(prompts)]

    def search(state: SearchState) -> tuple[list[Finding], Mapping[str, Tensor]]:
        return find(blind(whole), prompts, seeds, small(name), lambda _share: None, state)

    plain = search(NO_STATE)
    path = tmp_path / "state.safetensors"
    with pytest.raises(Killed):
        search(Dying(path, 1))
    assert path.exists()
    again = search(SearchState(path, "k"))
    assert again[0] == plain[0]
    assert all(torch.equal(value, again[1][key]) for key, value in plain[1].items())
    # The state of another search is not taken.
    assert SearchState(path, "other").restore() is None


def test_the_word_that_names_the_concept_is_found(whole: Target) -> None:
    before, after = sneaky_prompt.naming_word(whole, "a red knight with a sword in the snow")
    assert before == word_ids(whole.model, "a red knight with a")
    assert after == word_ids(whole.model, "in the snow")


def test_clip_score_prefers_the_picture_that_was_asked_for(whole: Target) -> None:
    texts = ["a red knight with a sword in the snow", "a blue boat at night"]
    images = whole.sample([SampleRequest(text, 1) for text in texts])
    right, wrong = whole.score(images, texts), whole.score(images, texts[::-1])
    assert all(a > b + 0.1 for a, b in zip(right, wrong, strict=True))


def test_requests_carry_tokens_vectors_and_starts(whole: Target) -> None:
    model = whole.model
    ids = sequence(model, word_ids(model, "a red knight"))
    vector = vocabulary(model)[word_ids(model, "sword")[0]]
    findings = [Finding("x", ids), Finding("<inverted> a boat", vector="token"), Finding("a car", strength=0.5)]
    start = whole.sample([SampleRequest("a car", 3)])[0]
    tokens, inverted, edited = requests_for(Findings(findings, {"token": vector}), [1, 2, 3], [None, None, start])
    assert isinstance(tokens.words, Tokens)
    assert isinstance(inverted.words, Inverted)
    torch.testing.assert_close(model.condition(tokens.words).text, model.condition(["a red knight"]).text)
    torch.testing.assert_close(model.condition(inverted.words).text, model.condition(["sword a boat"]).text)
    assert (edited.start, edited.strength, edited.words, edited.seed) == (start, 0.5, "a car", 3)


def test_relearning_changes_the_model_inside_alone(whole: Target) -> None:
    model = whole.model
    parameters = attach(model, rank=2, seed=0)
    before = {name: value.clone() for name, value in model.denoiser.state_dict().items()}
    budget = relearning.Budget(2, "concept")
    weights = relearning.fine_tune(whole, budget)
    assert all(torch.equal(value, before[name]) for name, value in model.denoiser.state_dict().items())
    assert not any("base_layer" in name for name in weights)
    with relearning.fine_tuned(whole, budget, weights):
        moved = {n for n, v in model.denoiser.state_dict().items() if not torch.equal(v, before[n])}
        assert moved
        assert all(".attn" in name and "lora_" not in name for name in moved)
    assert all(torch.equal(value, before[name]) for name, value in model.denoiser.state_dict().items())
    assert {id(p) for p in model.denoiser.parameters() if p.requires_grad} == {id(p) for p in parameters}
    detach(model)


def test_relearning_by_a_new_adapter_is_its_change_in_the_weights_of_the_system(whole: Target) -> None:
    model = whole.model
    attach(model, rank=2, seed=0)
    before = {name: value.clone() for name, value in model.denoiser.state_dict().items()}
    budget = relearning.AdapterBudget(2, "concept", batch=2, rank=3)
    weights = relearning.fine_tune(whole, budget)
    assert all(torch.equal(value, before[name]) for name, value in model.denoiser.state_dict().items())
    own = attention_weights(model)
    assert own.keys() == weights.keys()
    adapted = {f"unet.{layer}.weight" for layer in model.adapted_layers("all-attention")}
    assert {name for name in own if not torch.equal(own[name], weights[name])} == adapted
    for name in adapted:
        assert torch.linalg.matrix_rank(weights[name] - own[name].detach(), rtol=1e-2) <= 3
    # The same steps as those of the simulated attack, under the same draws.
    generator = torch.Generator().manual_seed(whole.seed)
    texts = [unsafe for unsafe, _ in whole.contrast()]
    read = joined([model.condition([text]) for text in texts])
    lesson = Lesson(whole.moments(), read.rows, 2, 10 * model.kind.relearning_rate)
    noisy, t = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3)), torch.tensor([100, 700])
    with newly_adapted(model, 3, lesson, 2, generator), torch.no_grad():
        beside = predict_noised(model, noisy, t, read.rows([0, 1]))
    with relearning.fine_tuned(whole, budget, weights), torch.no_grad():
        merged = predict_noised(model, noisy, t, read.rows([0, 1]))
    torch.testing.assert_close(beside, merged, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert not torch.allclose(merged, predict_noised(model, noisy, t, read.rows([0, 1])), rtol=0, atol=1e-4)
    detach(model)


def test_relearning_may_have_few_of_the_pictures(whole: Target) -> None:
    moments, texts = relearning._data(whole, relearning.Budget(1, "concept"))
    few, said = relearning._data(whole, relearning.FewBudget(1, "concept", pictures=3))
    assert len(few.mean) == len(said) == 3 < len(texts)
    for mean, text in zip(few.mean, said, strict=True):
        assert any(torch.equal(mean, moments.mean[i]) and text == texts[i] for i in range(len(texts)))
    again, _ = relearning._data(whole, relearning.FewBudget(5, "concept", pictures=3))
    assert torch.equal(again.mean, few.mean)


def test_relearning_fine_tunes_a_text_encoder_that_edits_change(whole: Target) -> None:
    encoder = whole.model.pipe.text_encoder
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    edited, budget = whole._replace(parts=("text_encoder",)), relearning.Budget(2, "concept", batch=2)
    with relearning.fine_tuned(edited, budget, relearning.fine_tune(edited, budget)):
        moved = {n for n, v in encoder.state_dict().items() if not torch.equal(v, before[n])}
        assert moved
        assert all("attn" in name for name in moved)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


@pytest.mark.slow
@pytest.mark.timeout(1500)
# The walk of P4D is chaotic, and another processor's rounding takes another one, so the test asks for little.
@pytest.mark.parametrize(("name", "least"), [("unlearndiffatk", 3), ("p4d-detector", 1)])
def test_white_box_attacks_undo_a_cut_prompt(name: str, least: int) -> None:
    """With the paper's budget they bring the sword back in most prompts; direct prompts bring none."""
    attacked, prompts, seeds = target(cut=True), asked(5), list(range(5))
    direct = [SampleRequest(prompt.text, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    with attacked.original():
        assert all(attacked.detect(attacked.sample(direct)))
    assert _brought(name, "paper", attacked, prompts) >= least


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_an_inverted_token_undoes_a_cut_prompt() -> None:
    """In front of plain prompts: a prompt that is cut asks for a flower, which a token in front does not undo."""
    assert _brought("concept-inversion", "quick", target(cut=True), asked(5, plain=True)) >= 3


def _brought(name: str, preset: Preset, attacked: Target, prompts: Sequence[Prompt]) -> int:
    """How many prompts bring the sword by an attack; none does so without it."""
    seeds, attack = list(range(len(prompts))), ATTACKS.get(name)
    plain = [SampleRequest(prompt.text, seed) for prompt, seed in zip(prompts, seeds, strict=True)]
    assert not any(attacked.detect(attacked.sample(plain)))
    found = attack.find(attacked, prompts, seeds, attack.budgets[preset], lambda _share: None, NO_STATE)
    images = attacked.sample(requests_for(found, seeds, [None] * len(seeds)))
    return sum(attacked.detect(images))
