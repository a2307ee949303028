"""STEREO by its worked numbers, and on a small SDXL: its search, what it starts from, and that it resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.edits.files import read_edit
from duo_unlearn.erasers import descent, stereo
from duo_unlearn.erasers.interface import EraserContext
from duo_unlearn.erasers.layers import trained_names
from duo_unlearn.erasers.stereo import STEREO, StereoLoss, _search_key, target
from duo_unlearn.erasers.trained import trained_weights
from duo_unlearn.erasers.words import Contrast
from duo_unlearn.families.interface import Model
from duo_unlearn.families.inversion import TEMPLATES
from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.families.tokens import PLACEHOLDER, initial_vector
from duo_unlearn.runs.search_state import SearchState
from duo_unlearn.storage.files import read_tensors

from ..slow import slow
from .small_sdxl import context_on, small_sdxl

QUICK = {
    "rounds": 2, "search_steps": 2, "search_lr": 1e-2, "inversion_steps": 3, "inversion_batch": 2, "steps": 3,
    "lr": 1e-2, "latents": "pairs",
}  # fmt: skip
ZERO, ONE = torch.zeros(2), torch.ones(2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_sdxl(tmp_path_factory.mktemp("sdxl"))


def denoiser_of(model: Model) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.denoiser.named_parameters()}


def test_the_target_as_published_and_as_meant() -> None:
    assert torch.equal(target(ZERO, [ONE], [ONE], 1.0, -3.0), torch.full((2,), -2.0))
    assert torch.equal(target(ZERO, [ONE], [ONE], 1.0, -1.0), ZERO)
    # Without anchors it is ESD's: ε_∅ − η (ε_c − ε_∅).
    assert torch.equal(target(ONE, [], [3 * ONE], 0.0, -1.0), -ONE)


def test_equal_tokens_count_once_and_shares_do_not_depend_on_their_number() -> None:
    generator = torch.Generator().manual_seed(0)
    empty, anchor, first, second = torch.randn(4, 5, generator=generator)
    once = target(empty, [anchor], [first, second], 1.0, -1.0)
    torch.testing.assert_close(target(empty, [anchor], [first, second] * 2, 1.0, -1.0), once)
    torch.testing.assert_close(once, anchor - ((first + second) / 2 - empty))


@pytest.mark.parametrize("prompts", ["word", "scenes"])
def test_an_untouched_model_has_the_loss_of_its_scales(model: Model, tmp_path: Path, prompts: str) -> None:
    """w₊ 0: (1 − w₋)² · mean (ε_c − ε_∅)² for one phrase, so w₋ = 1 asks for what is there."""
    context = context_on(model, tmp_path, "stereo", latents="pairs", prompts=prompts, batch=2)
    with trained_weights(model, trained_names(model, "u")) as weights:
        losses = {
            minus: float(StereoLoss(context, weights, [None], (0.0, minus), "once")(0).detach())
            for minus in (1.0, 0.0, -1.0, -3.0)
        }
    assert losses[1.0] == pytest.approx(0, abs=1e-9)
    assert losses[-1.0] == pytest.approx(4 * losses[0.0], rel=1e-3)
    assert losses[-3.0] == pytest.approx(16 * losses[0.0], rel=1e-3)


def test_a_round_of_the_search_goes_away_from_its_phrase(model: Model, tmp_path: Path) -> None:
    """Its first loss, of an untouched model, is (1 + η)² · mean (ε_c − ε_∅)²: η = −1 asks for what is there."""
    once = QUICK | {"rounds": 1, "search_steps": 1, "inversion_steps": 1}
    context = context_on(model, tmp_path, "stereo", **once, search_eta=-1.0)
    stereo._search(context, trained_names(model, "u"))
    (path,) = context.run.folder.glob("train/stereo-search-*/round-1/metrics.jsonl")
    assert json.loads(path.read_text())["loss"] == pytest.approx(0, abs=1e-9)


def test_the_phrases_come_in_equal_shares(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_on(model, tmp_path, "stereo", latents="pairs", batch=2)
    vectors = [initial_vector(model, word) for word in ("boat", "car")]
    with trained_weights(model, trained_names(model, "u")) as weights:
        loss = StereoLoss(context, weights, [None, *vectors], (1.0, -1.0), "once")
        asked: list[Tensor] = []
        concepts: list[Tensor] = []
        read, latents = loss.read, loss._latents

        def kept_read(*arguments: Any) -> Any:
            found = read(*arguments)
            concepts.append(found.text)
            return found

        def kept_latents(given: Any, *arguments: Any) -> Any:
            asked.append(given.text)
            return latents(given, *arguments)

        monkeypatch.setattr(loss, "read", kept_read)
        monkeypatch.setattr(loss, "_latents", kept_latents)
        for step in range(3):
            loss(step)
    turns = []
    for step, given in enumerate(asked):
        there = concepts[3 * step : 3 * step + 3]
        turns += [next(k for k in range(3) if torch.equal(there[k][i], given[i])) for i in range(2)]
    assert turns == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("prompts", ["scenes", "places"])
def test_a_token_that_reads_as_the_word_is_that_word_in_its_place(model: Model, tmp_path: Path, prompts: str) -> None:
    context = context_on(model, tmp_path, "stereo", latents="pairs", prompts=prompts, batch=2)
    with trained_weights(model, trained_names(model, "u")) as weights:
        loss = StereoLoss(context, weights, [None], (1.0, -1.0), "once")
        scenes = [scene for scene in loss.texts if loss.word in scene.unsafe]
        assert scenes
        token = loss.read(initial_vector(model, loss.word), scenes, TEMPLATES)
        word = loss.read(None, scenes, TEMPLATES)
    assert torch.allclose(token.text, word.text, atol=1e-5) == (prompts == "places")


def test_a_token_stands_before_a_scene_whose_prompt_has_not_the_word(model: Model, tmp_path: Path) -> None:
    context = context_on(model, tmp_path, "stereo", latents="pairs", prompts="places")
    with trained_weights(model, trained_names(model, "u")) as weights:
        loss = StereoLoss(context, weights, [None], (1.0, -1.0), "once")
    # A longer word that has it inside is another word.
    assert loss._filled(Contrast("a knight with a swordfish", "a knight")) == f"{PLACEHOLDER} a knight"
    assert loss._filled(Contrast("a sword, held high", "a hand")) == f"a {PLACEHOLDER}, held high"
    assert loss._filled(Contrast("a sword and a sword", "two hands")) == f"{PLACEHOLDER} two hands"


def test_all_but_cross_attention_is_trained(model: Model) -> None:
    names = trained_names(model, "u")
    assert names
    assert not any(".attn2." in name for name in names)
    assert set(trained_names(model, "x")).isdisjoint(names)


@pytest.mark.parametrize("latents", ["pairs", *slow(["sampled"])])
def test_the_second_stage_starts_bit_equal_to_the_original(model: Model, tmp_path: Path, latents: str) -> None:
    before = denoiser_of(model)
    options = QUICK | {"latents": latents, "sampling_steps": 3}
    context = context_on(model, tmp_path, "stereo", **options)
    assert STEREO.course is not None
    with STEREO.course(context) as course:
        assert all(torch.equal(before[name], value) for name, value in model.denoiser.named_parameters())
        assert {f"unet.{name}" for name in before} > set(course.descent.tensors)
        assert course.descent.loss(0).isfinite()
    (path,) = context.run.folder.glob("train/stereo-search-*/tokens.safetensors")
    tokens, _ = read_tensors(path)
    start = initial_vector(model, "picture")
    assert sorted(tokens) == ["0", "1"]
    assert all(token.shape == start.shape and not torch.equal(token, start) for token in tokens.values())
    assert not torch.equal(tokens["0"], tokens["1"])
    # The rounds' states are large, and are let go once the tokens are there.
    assert not list(tmp_path.glob("train/stereo-search-*/round-*/checkpoint.safetensors"))


def test_each_round_goes_on_from_the_last_one(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Tensor]] = []
    real = stereo._invert

    def kept(*arguments: Any) -> Tensor:
        seen.append(denoiser_of(model))
        return real(*arguments)

    monkeypatch.setattr(stereo, "_invert", kept)
    before = denoiser_of(model)
    context = context_on(model, tmp_path, "stereo", **QUICK)
    stereo._search(context, trained_names(model, "u"))
    moved = [sum(float((now[name] - value).abs().sum()) for name, value in before.items()) for now in seen]
    assert 0 < moved[0] < moved[1]
    assert all(torch.equal(before[name], value) for name, value in model.denoiser.named_parameters())
    assert not any(value.requires_grad for value in model.denoiser.parameters())


def killed_in_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    _die(monkeypatch, descent, "_step", 4)  # the second step of round 2


def killed_in_an_inversion(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of a state that is written at every step.
    real = SearchState.offer

    def offer(self: SearchState, step: int, tensors: Any) -> None:
        self.every = 0.0
        real(self, step, tensors)
        if "inversion-2" in str(self.path) and step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(SearchState, "offer", offer)


def killed_in_the_second_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    _die(monkeypatch, descent, "_step", 6)


def _die(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, at: int) -> None:
    real, calls = getattr(module, name), []

    def dying(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(module, name, dying)


@pytest.fixture(scope="module")
def whole(model: Model, tmp_path_factory: pytest.TempPathFactory) -> EraserContext:
    context = context_on(model, tmp_path_factory.mktemp("whole"), "stereo", **QUICK)
    assert STEREO.erase(context, "stereo") == "done"
    return context


@pytest.mark.parametrize("kill", [killed_in_a_round, killed_in_an_inversion, killed_in_the_second_stage])
@pytest.mark.slow
def test_it_resumes_bit_for_bit_wherever_it_was_killed(
    model: Model, whole: EraserContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kill: Any
) -> None:
    context = context_on(model, tmp_path, "stereo", **QUICK)
    with monkeypatch.context() as patched:
        patched.setattr(descent, "CHECKPOINT_EVERY", 1)
        kill(patched)
        with pytest.raises(KeyboardInterrupt):
            STEREO.erase(context, "stereo")
    assert STEREO.erase(context, "stereo") == "done"
    expected, found = (read_edit(c.run.edit("stereo")) for c in (whole, context))
    assert found.sha256 == expected.sha256
    assert STEREO.erase(context, "stereo") == "already done"


@pytest.mark.slow
def test_the_passes_of_the_search_are_counted(whole: EraserContext) -> None:
    provenance = read_edit(whole.run.edit("stereo")).provenance
    # Two rounds of two steps of ∅, c and the student's, and of three steps of two images.
    assert provenance["search_passes"] == 2 * (2 * 3 + 3 * 2)
    # Three steps of ∅, the anchor, the word, two tokens, and the student's.
    assert provenance["passes"] == provenance["search_passes"] + 3 * 6
    assert whole.run.metrics("stereo").exists()


def test_another_search_lies_apart_and_another_second_stage_reads_the_tokens(whole: EraserContext) -> None:
    other = whole._replace(options=whole.options.model_copy(update={"inversion_lr": 1e-2}))
    assert _search_key(other) != _search_key(whole)
    assert STEREO.course is not None
    same = whole._replace(options=whole.options.model_copy(update={"concept_weight": -3.0}))
    assert _search_key(same) == _search_key(whole)
    with STEREO.course(same) as course:
        assert course.descent.steps == 3


@pytest.mark.parametrize("wordings", ["direct", "all"])
def test_a_search_over_all_wordings_is_another_one_when_the_concept_file_has_others(
    model: Model, tmp_path: Path, wordings: str
) -> None:
    before = context_on(model, tmp_path, "stereo", **QUICK, wordings=wordings)
    concept = before.concept
    first, *others = concept.attacks
    fewer = concept.model_copy(update={"attacks": {name: concept.attacks[name] for name in others}})
    assert first not in fewer.attacks
    after = before._replace(concept=fewer)
    assert (_search_key(before) == _search_key(after)) == (wordings == "direct")


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_families_that_read_t5_cannot_have_it(family: str) -> None:
    assert "T5" in str(STEREO.why_not(FAMILIES.get(family)))
