"""SPM by its worked numbers: the loss at the start, its anchors, which layers it changes, and how PEFT reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from duo_unlearn.edits.files import read_edit, with_strength
from duo_unlearn.edits.lora import LoraEdit
from duo_unlearn.edits.merge import merge
from duo_unlearn.erasers.course import Course
from duo_unlearn.erasers.descent import generator_of
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.erasers.spm import SpmLoss, adapted_layers, anchors_of, erase_loss
from duo_unlearn.families.interface import Conditioning, Model
from duo_unlearn.families.load import load_model
from duo_unlearn.families.ode import noise_of
from duo_unlearn.families.registry import FAMILIES

from ..families import small_models as small
from ..families.small_llms import LLMS
from ..slow import slow
from .small import CPU, pairs_in
from .words_alone import SAFE, UNSAFE, context_of

SHORT: dict[str, object] = {"sampling_steps": 2}
NOISE = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", CPU)


@pytest.fixture(scope="module")
def edit(model: Model, tmp_path_factory: pytest.TempPathFactory) -> LoraEdit:
    """The adapter of a short training, as its file has it."""
    context = context_of("spm", model, tmp_path_factory.mktemp("spm"), SHORT | {"steps": 2, "lr": 1e-2})
    assert ERASERS.get("spm").erase(context, "spm") == "done"
    read = read_edit(context.run.edit("spm"), "spm")
    assert isinstance(read, LoraEdit)
    return read


@contextmanager
def course_of(model: Model, folder: Path, **options: object) -> Iterator[Course]:
    """A training that is ready to run, with the adapter on."""
    make = ERASERS.get("spm").course
    assert make is not None
    with make(context_of("spm", model, folder, SHORT | options)) as course:
        yield course


def asked(model: Model) -> Tensor:
    with torch.no_grad():
        return model.predict(NOISE, torch.tensor([500]), model.condition([UNSAFE]))


@pytest.mark.parametrize(("eta", "expected"), [(1.0, 1.0), (0.0, 0.25), (-1.0, 0.0)])
def test_the_loss_at_the_start_by_hand(eta: float, expected: float) -> None:
    # (1 + η)² · mean (ε_c − ε_∅)², with a difference of 0.5 everywhere.
    concept, empty = torch.full((4,), 0.5), torch.zeros(4)
    assert float(erase_loss(concept, concept, empty, eta)) == pytest.approx(expected)


@pytest.mark.parametrize("surrogate", ["safe", *slow(["empty"])])
def test_an_untouched_adapter_changes_nothing_and_has_that_loss(model: Model, tmp_path: Path, surrogate: str) -> None:
    before, values = asked(model), []
    for eta in (-1.0, 0.0, 1.0):
        with course_of(model, tmp_path, eta=eta, surrogate=surrogate) as course:
            assert torch.equal(asked(model), before)
            values.append(float(course.descent.loss(0).detach()))
            if eta == 0:
                loss = course.descent.loss
                assert isinstance(loss, SpmLoss)
                generator, concept = generator_of(0, "spm", 0), model.condition([UNSAFE])
                torch.randint(0, 1, (1,), generator=generator)  # which prompt
                noisy, t = loss._latents(generator, [UNSAFE], concept)
                other = model.condition(["" if surrogate == "empty" else SAFE])
                with torch.no_grad():
                    difference = model.predict(noisy, t, concept) - model.predict(noisy, t, other)
    assert torch.equal(asked(model), before)
    assert values[1] == pytest.approx(float(difference.square().mean()), rel=1e-3)
    assert values[2] == pytest.approx(4 * values[1], rel=1e-3)
    assert values[0] < 1e-6


def test_anchors_have_about_the_norm_of_their_prompt_and_nothing_else_of_it() -> None:
    generator = torch.Generator().manual_seed(0)
    concept = Conditioning(torch.randn((2, 24, 128), generator=generator), torch.randn((2, 48), generator=generator))
    concept = concept.map(lambda x: x * torch.tensor([1.0, 5.0]).view(-1, *(1,) * (x.ndim - 1)))
    anchors = anchors_of(concept, 100, generator)
    assert anchors.pooled is not None
    assert concept.pooled is not None
    for drawn, given in ((anchors.text, concept.text), (anchors.pooled, concept.pooled)):
        for i in range(2):  # the anchors of a prompt follow one another
            ratio = drawn[100 * i : 100 * (i + 1)].flatten(1).norm(dim=1) / given[i].norm()
            assert 0.8 <= float(ratio.min()) < 0.85
            assert 1.15 < float(ratio.max()) < 1.2
    cosines = torch.cosine_similarity(anchors.text[:100].flatten(1), concept.text[:1].flatten(1))
    assert float(cosines.abs().max()) < 0.1  # so the published rule, 1 − cos, keeps nearly all


@pytest.mark.slow
def test_anchors_weigh_as_they_are_told_and_hold_the_adapter(model: Model, tmp_path: Path) -> None:
    values = []
    for weight in (0.0, 1.0, 1000.0):
        with course_of(model, tmp_path, anchor_weight=weight) as course:
            for name, tensor in course.descent.tensors.items():
                if ".lora_B." in name:
                    tensor.data = torch.full(tensor.shape, 0.02)
            values.append(float(course.descent.loss(0).detach()))
    assert values[2] > values[1] > values[0]
    assert values[2] - values[0] == pytest.approx(1000 * (values[1] - values[0]), rel=0.02)


def test_latents_follow_the_model_in_training(model: Model, tmp_path: Path) -> None:
    with course_of(model, tmp_path) as course:
        loss = course.descent.loss
        assert isinstance(loss, SpmLoss)

        def drawn(seed: int) -> tuple[Tensor, Tensor]:
            return loss._latents(torch.Generator().manual_seed(seed), [UNSAFE], model.condition([UNSAFE]))

        before = [drawn(seed) for seed in range(4)]
        assert {int(t) for _, t in before} == {1, 501}
        for tensor in course.descent.tensors.values():
            tensor.data = torch.full(tensor.shape, 0.05)
        # The first step of two reads pure noise, the second what the trained model made of it.
        for seed, (noisy, t) in enumerate(before):
            assert torch.equal(drawn(seed)[0], noisy) == (int(t) == 501)


def test_every_layer_of_the_transformers_gets_it_at_the_authors_start(model: Model, tmp_path: Path) -> None:
    layers = adapted_layers(model)
    modules = dict(model.denoiser.named_modules())
    kinds = {name: type(module) for name, module in modules.items() if isinstance(module, (nn.Linear, nn.Conv2d))}
    assert {kinds[name] for name in layers} == {nn.Linear, nn.Conv2d}
    assert set(layers) == {name for name in kinds if ".attentions." in name}
    assert not any("resnets" in name or "sampler" in name for name in layers)
    with course_of(model, tmp_path) as course:
        tensors = course.descent.tensors
        assert len(tensors) == 2 * len(layers)
        for name, tensor in tensors.items():
            if ".lora_B." in name:
                assert not tensor.any()
                continue
            assert tensor.shape[0] == 1
            limit = tensor.numel() ** -0.5
            assert 0.8 * limit < float(tensor.detach().abs().max()) <= limit
        first = {name: tensor.clone() for name, tensor in tensors.items()}
    with course_of(model, tmp_path) as course:
        assert all(torch.equal(first[name], tensor) for name, tensor in course.descent.tensors.items())


@pytest.mark.slow
def test_peft_reads_what_is_saved_convolutions_too(model: Model, edit: LoraEdit) -> None:
    assert edit.rank == 1
    assert {down.ndim for down, _ in edit.layers.values()} == {2, 4}
    generator = torch.Generator().manual_seed(0)
    for name in ("down_blocks.1.attentions.0.proj_in", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"):
        layer = model.denoiser.get_submodule(name)
        down, up = edit.layers[f"unet.{name}"]
        given = torch.randn((1, 96, 8, 8) if down.ndim == 4 else (1, 24, 128), generator=generator)
        product = (up.flatten(1) @ down.flatten(1)).view(len(up), *down.shape[1:])
        change = nn.functional.conv2d(given, product) if down.ndim == 4 else nn.functional.linear(given, product)
        assert float(change.abs().max()) > 0
        before = layer(given)
        # What is added is linear in the strength, and nothing at 0.
        for strength in (0.0, 0.5, 1.0):
            with with_strength(edit, strength).on(model):
                after = model.denoiser.get_submodule(name)(given)
            torch.testing.assert_close(after - before, strength * change, rtol=1e-3, atol=1e-6)


def test_strength_0_is_the_original_and_a_merge_is_the_adapter(model: Model, edit: LoraEdit) -> None:
    before = asked(model)
    with with_strength(edit, 0.0).on(model):
        assert torch.equal(asked(model), before)
    with edit.on(model):
        after = asked(model)
    assert not torch.equal(after, before)
    merged = load_model("mini", CPU)
    merge(edit, merged)
    torch.testing.assert_close(asked(merged), after, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", slow(["sdxl", "sd3", "flux", *sorted(LLMS)]))
def test_every_family_can_have_it(tmp_path: Path, family: str) -> None:
    assert all(ERASERS.get("spm").why_not(FAMILIES.get(name)) is None for name in FAMILIES.names())
    maker = LLMS[family] if family in LLMS else getattr(small, family)
    model = load_model(str(maker(tmp_path / family)), CPU, resolution=small.RESOLUTION)
    context = context_of("spm", model, tmp_path, SHORT | {"steps": 2})
    if family != "sdxl":  # it cannot sample, and reads the pairs' pictures
        pairs = pairs_in(context.run.folder, 2)
        named = [dataclasses.replace(pair, unsafe_prompt=UNSAFE, safe_prompt=SAFE) for pair in pairs]
        context = context._replace(pairs=named)
    assert ERASERS.get("spm").erase(context, "spm") == "done"
    read = read_edit(context.run.edit("spm"))
    assert isinstance(read, LoraEdit)
    assert len(read.layers) == len(adapted_layers(model)) > 0
    noise = noise_of(model, [0])
    t, words = torch.tensor([500]), model.condition([UNSAFE])
    with torch.no_grad():
        before = model.predict(noise, t, words)
        with read.on(model):
            assert not torch.equal(model.predict(noise, t, words), before)
        assert torch.equal(model.predict(noise, t, words), before)
