"""SalUn: which weights its mask chooses, that the others stay as they were, and what its loss is made of."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.weights import Replacement, WeightEdit, locate
from duo_unlearn.erasers import salun
from duo_unlearn.erasers.descent import descend
from duo_unlearn.erasers.latents import pair_latents
from duo_unlearn.erasers.pictures import Noised
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.erasers.salun import SalunLoss, most_salient
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Conditioning, Model
from duo_unlearn.families.load import load_model

from .small import CPU
from .small_sdxl import context_on, small_sdxl


def test_the_mask_takes_the_largest_of_all_weights_together() -> None:
    gradients = {"a": torch.tensor([1.0, -3.0, 0.0]), "b": torch.tensor([[2.0, -0.5]])}
    masks = most_salient(gradients, 0.5)  # ⌊0.5 · 5⌋ = 2
    assert masks["a"].tolist() == [False, True, False]
    assert masks["b"].tolist() == [[True, False]]


@pytest.mark.parametrize("share", [0.0001, 0.1, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("kind", ["all different", "half zero", "all equal"])
def test_a_mask_has_exactly_its_share_of_ones(share: float, kind: str) -> None:
    flat = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    flat = {"all different": flat, "half zero": flat * (flat > 0), "all equal": torch.ones(1000)}[kind]
    masks = most_salient({"a": flat[:400].view(20, 20), "b": flat[400:]}, share)
    chosen = torch.cat([mask.flatten() for mask in masks.values()])
    assert int(chosen.sum()) == math.floor(share * 1000)
    if 0 < int(chosen.sum()) < 1000:
        assert float(flat.abs()[chosen].min()) >= float(flat.abs()[~chosen].max())


@pytest.mark.slow
def test_signs_cancel_before_the_absolute_value(tmp_path: Path) -> None:
    context = context_on(load_model("mini", CPU), tmp_path, "salun", batch=2)
    make = ERASERS.get("salun").course
    assert make is not None
    with make(context) as course:
        # Three pairs fill two batches. At the start the tensors are the original ones still.
        loss, tensors = SalunLoss(context), course.descent.tensors
        parts = [torch.autograd.grad(loss.guided(batch), list(tensors.values())) for batch in range(2)]
        sums = dict(zip(tensors, (a + b for a, b in zip(*parts, strict=True)), strict=True))
        expected = most_salient(sums, 0.5)
        sizes = dict(zip(tensors, (a.abs() + b.abs() for a, b in zip(*parts, strict=True)), strict=True))
        masks = course.descent.masks
        assert all(torch.equal(masks[name], expected[name]) for name in tensors)
        assert any(not torch.equal(masks[name], mask) for name, mask in most_salient(sizes, 0.5).items())


@pytest.mark.slow
def test_weights_outside_the_mask_stay_bit_for_bit(tmp_path: Path) -> None:
    model = load_model("mini", CPU)
    context = context_on(model, tmp_path, "salun", batch=2, steps=2, lr=1e-3)
    make = ERASERS.get("salun").course
    assert make is not None
    with make(context) as course:
        tensors, masks = course.descent.tensors, course.descent.masks
        before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        descend(course.descent, model.denoiser, context.run, "salun", "key", quiet=True)
        assert all(torch.equal(tensors[name][~masks[name]], before[name][~masks[name]]) for name in tensors)
        moved = sum(int((tensors[name] != before[name]).sum()) for name in tensors)
        course.write(tmp_path / "edit", {})
    assert set(masks) == {f"unet.{name}" for name, _ in model.denoiser.named_parameters()}
    assert 0.4 < moved / sum(len(tensor.flatten()) for tensor in before.values()) <= 0.5
    assert read_edit(tmp_path / "edit").changed(model) == moved
    assert all(torch.equal(located, before[name]) for name in before if (located := locate(model, name)) is not None)


def test_without_guidance_saliency_is_that_of_the_plain_loss(tmp_path: Path) -> None:
    context = context_on(load_model("mini", CPU), tmp_path, "salun", batch=2, guidance=0.0)
    plain = SalunLoss(context).guided(0)
    assert -1.5 < plain.item() < 0  # minus an error of about the noise's size at most
    strong = context._replace(options=context.options.model_copy(update={"guidance": 7.5}))
    assert SalunLoss(strong).guided(0).item() < plain.item()


def test_the_target_is_the_trained_models_own_and_carries_no_gradient(tmp_path: Path) -> None:
    model = load_model("mini", CPU)
    context = context_on(model, tmp_path, "salun", batch=2, steps=1)
    loss = SalunLoss(context)
    bias = model.denoiser.get_parameter("conv_out.bias").requires_grad_(True)
    forget, retain = loss.terms(0)
    # Both predictions have the last layer's bias: with a gradient through the target too, its own would cancel.
    (slope,) = torch.autograd.grad(forget, bias)
    assert float(slope.abs().max()) > 1e-4
    with torch.no_grad():
        # Of another model in training the target moves along: the loss is between its own two predictions.
        weight = model.denoiser.conv_out.weight  # type: ignore[union-attr]
        weight.mul_(2)  # type: ignore[operator]
        model.denoiser.conv_out.bias.zero_()  # type: ignore[union-attr,operator]
        assert loss.terms(0)[0].item() == pytest.approx(4 * forget.item(), rel=1e-4)
    assert 0 < forget.item() < retain.item()


def test_the_losses_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that predicts 1.5 under a prompt and 1 under none, where it should give 2."""
    loss = SalunLoss(context_on(load_model("mini", CPU), tmp_path, "salun", batch=1))
    ones = torch.ones(1, 4, 16, 16)

    def predict(_model: Model, noisy: Tensor, _t: Tensor, given: Conditioning) -> Tensor:
        asked = (given.text != loss.model.condition([""]).text).flatten(1).any(dim=1)
        return torch.ones_like(noisy) + 0.5 * asked.view(-1, 1, 1, 1)

    monkeypatch.setattr(salun, "predict_noised", predict)
    monkeypatch.setattr(loss.pictures, "with_target", lambda *_: Noised(ones, torch.zeros(1), 2 * ones))
    # 8.5 · 1.5 − 7.5 · 1 = 5.25 is 3.25 away.
    assert float(loss.guided(0)) == -(3.25**2)
    # Every prompt is told alike: nothing is left to forget, and what is kept is 0.5 away. α is 0.1.
    assert [float(term) for term in loss.terms(0)] == [0.0, 0.25]
    assert float(loss(0)) == pytest.approx(0.025)


def test_no_share_is_no_mask_and_pairs_without_words_are_refused(tmp_path: Path) -> None:
    model = load_model("mini", CPU)
    make = ERASERS.get("salun").course
    assert make is not None
    context = context_on(model, tmp_path, "salun", share=1.0)
    with make(context) as course:
        assert course.descent.masks == {}
    bare = [
        pair.__class__(*(pair.name, pair.unsafe, pair.safe, pair.unsafe_sha256, pair.safe_sha256))
        for pair in context.pairs
    ]
    with pytest.raises(DuoError, match="the pairs have none"), make(context._replace(pairs=bare)):
        pass


@pytest.mark.slow
def test_it_works_on_a_small_sdxl(tmp_path: Path) -> None:
    model = small_sdxl(tmp_path)
    context = context_on(model, tmp_path / "run", "salun", batch=1, steps=1)
    assert ERASERS.get("salun").erase(context, "salun") == "done"
    edit = read_edit(context.run.edit("salun"), "salun")
    assert isinstance(edit, WeightEdit)
    assert all(isinstance(change, Replacement) and name.startswith("unet.") for name, change in edit.changes.items())
    # Three batches of a row, twice each, for the mask; a step has three rows.
    assert (edit.provenance["mask_passes"], edit.provenance["passes"]) == (6, 9)
    assert pair_latents(context).unsafe.mean.shape[0] == 3
