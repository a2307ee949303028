"""Attacks that Meta-Unlearning simulates as who has a merged model makes them: relearning itself, and a new adapter."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import duo_unlearn as duo
from duo_unlearn.attacks import relearning
from duo_unlearn.attacks.fine_tuning import Lesson, learn
from duo_unlearn.attacks.fresh_adapter import fresh_adapter
from duo_unlearn.edits.weights import LowRank, WeightEdit
from duo_unlearn.erasers.descent import generator_of
from duo_unlearn.erasers.interface import EraserContext
from duo_unlearn.erasers.meta_unlearning import META_UNLEARNING, MetaLoss, MetaUnlearningSettings
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.families.denoising import noised_batch, predict_noised
from duo_unlearn.families.interface import Conditioning, Model, Moments
from duo_unlearn.families.load import load_model
from duo_unlearn.storage.forms import deciding

from ..attacks.prompt_cut import target
from ..slow import slow
from .small import CPU, OPTIONS
from .small_sdxl import context_on, small_sdxl

QUICK = {"batch": 2, "attack_steps": 2, "keep_unrelated": 0.0, "keep_related": 0.0}
PUBLISHED = {
    "keep_unrelated": 0.1, "keep_related": 0.01, "spoil_unsafe": 0.1, "spoil_related": 0.1, "spoil_unrelated": 0.0,
    "batch": 10, "attack_steps": None, "attack_lr": 1e-5, "max_grad_norm": 1.0, "unrelated": 64, "sampling_steps": 50,
    "guidance": 7.5,
}  # fmt: skip
"""The options as the keys of edits have them that were made by version 0.1.0."""


# --- keys -------------------------------------------------------------------------------------------------------------
def test_an_edit_of_the_published_attack_is_known_again() -> None:
    assert deciding(MetaUnlearningSettings()) == PUBLISHED
    assert deciding(MetaUnlearningSettings.model_validate(PUBLISHED)) == PUBLISHED
    assert MetaUnlearningSettings(attack_lr=1e-3).attack_lr == 1e-3


@pytest.mark.parametrize("rate", [1e-5, 1e-4])
def test_an_edit_of_the_weaker_attack_on_weights_of_before_is_not(rate: float) -> None:
    now = MetaUnlearningSettings(attack_on="weights", attack_lr=rate)
    assert deciding(now) == PUBLISHED | {"attack_on": "weights", "attack_lr": rate, "attack_batch": 8}
    # Once more with all that it says, as a file of settings may have it.
    assert deciding(MetaUnlearningSettings.model_validate(now.model_dump())) == deciding(now)


# --- relearning -------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def attacked_loss(context: EraserContext, eraser: str, **options: object) -> Iterator[MetaLoss]:
    """The wrap's loss around an eraser, whose tensors are not what they were at first."""
    make = ERASERS.get(eraser).course
    assert make is not None
    settings = MetaUnlearningSettings.model_validate(QUICK | options)
    with META_UNLEARNING.course(make, context, settings) as course:
        loss = course.descent.loss
        assert isinstance(loss, MetaLoss)
        generator = torch.Generator().manual_seed(1)
        for tensor in loss.tensors:
            tensor.data += 0.02 * torch.randn(tensor.shape, generator=generator)
        yield loss


def duo_context(model: Model, folder: Path) -> EraserContext:
    return context_on(model, folder, "duo", max_train_steps=1, rank=2, prior_weight=0.0, captions="unsafe")


@contextlib.contextmanager
def text_edit(model: Model) -> Iterator[None]:
    """An edit of the text encoder acts, as a floor does. It changes no attention, which is attacked all the same."""
    name = next(n for n, _ in model.pipe.text_encoder.named_parameters() if n.endswith("layers.0.mlp.fc1.weight"))
    weight = model.pipe.text_encoder.get_parameter(name)
    generator = torch.Generator().manual_seed(0)
    sides = (torch.randn(weight.shape[0], 1, generator=generator), torch.randn(1, weight.shape[1], generator=generator))
    change = LowRank(*(0.2 * side for side in sides))
    with WeightEdit("floor", "0", Path("floor"), {f"text_encoder.{name}": change}, {}).on(model):
        yield


def red_team_weights(context: EraserContext, loss: MetaLoss, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """The weights that the attack itself gives, under the draws of the simulated one at step 0."""
    pictures = loss.sets["unsafe"]
    seen = target(cut=False)._replace(
        model=context.model,
        moments=lambda: pictures.moments,
        contrast=lambda: [(text, "") for text in pictures.captions],
        parts=parts,
        seed=generator_of(context.seed, "meta-unlearning", "attack", 0).initial_seed(),
    )
    return relearning.fine_tune(seen, relearning.Budget(loss.attack_steps, "concept"))


@pytest.mark.parametrize("floor", [*slow([False]), True])
def test_an_attack_on_weights_is_relearning(tmp_path: Path, floor: bool) -> None:
    model = load_model("mini", CPU)
    context = duo_context(model, tmp_path)
    parts = ("unet", "text_encoder") if floor else ("unet",)
    below = text_edit(model) if floor else contextlib.nullcontext()
    with below, attacked_loss(context, "duo", attack_on="weights") as loss:
        before = {f"{part}.{n}": p.detach().clone() for part in parts for n, p in named(model, part).items()}
        wanted = red_team_weights(context, loss, parts)
        with loss.attacked(0):
            now = {f"{part}.{n}": p.detach().clone() for part in parts for n, p in named(model, part).items()}
        after = {f"{part}.{n}": p for part in parts for n, p in named(model, part).items()}
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert not any(p.requires_grad or p.grad is not None for n, p in after.items() if "lora_" not in n)
    moved = {name.replace(".base_layer.", ".") for name in now if not torch.equal(now[name], before[name])}
    assert moved == wanted.keys()
    assert any(name.startswith("text_encoder.") for name in moved) == floor
    for name, value in now.items():
        if (plain := name.replace(".base_layer.", ".")) in wanted:
            # Captions that are read in a batch are rounded otherwise; no step is as small as that.
            torch.testing.assert_close(value, wanted[plain], rtol=0, atol=1e-5)


def named(model: Model, part: str) -> dict[str, Any]:
    return dict(getattr(model.pipe, part).named_parameters())


@pytest.mark.slow
def test_captions_are_read_anew_where_a_text_encoder_below_has_moved(tmp_path: Path) -> None:
    model = load_model("mini", CPU)
    with text_edit(model), attacked_loss(duo_context(model, tmp_path), "duo", attack_on="weights") as loss:
        assert loss.texts  # they stay for what is before the attack
        with loss.attacked(0):
            anew = loss.drawn("unsafe", "after", 0).item()
            moved = model.condition([loss.sets["unsafe"].captions[0]]).text
            torch.testing.assert_close(loss.read("unsafe", [0], anew=True).text, moved, rtol=1e-4, atol=1e-5)
            assert not torch.allclose(moved, loss.texts["unsafe"].rows([0]).text, rtol=0, atol=1e-5)
            loss.moves_text = False
            assert loss.drawn("unsafe", "after", 0).item() != anew
            loss.moves_text = True
        assert any(float(part.norm()) > 0 for part in loss.added(0))


@pytest.mark.parametrize("attack_on", [*slow(["weights"]), "adapter"])
def test_a_trained_text_encoder_has_gradients_through_either_attack(tmp_path: Path, attack_on: str) -> None:
    model = small_sdxl(tmp_path)
    context = context_on(model, tmp_path, "hirm", steps=1)
    with attacked_loss(context, "hirm", attack_on=attack_on, attack_lr=1e-3) as loss:
        before = [tensor.detach().clone() for tensor in loss.tensors]
        assert any(float(part.norm()) > 0 for part in loss.added(0))
        assert all(torch.equal(tensor, old) for tensor, old in zip(loss.tensors, before, strict=True))
        assert all(tensor.requires_grad for tensor in loss.tensors)


def test_steps_are_of_adamw_with_its_own_decay_and_no_clipping() -> None:
    model = load_model("mini", CPU)
    weight = model.denoiser.get_parameter(next(n for n in named(model, "unet") if "attn1.to_q" in n))
    before, rate = weight.detach().clone(), 1e-1
    # Pictures far out, for gradients that a clipping would change from step to step.
    mean = 30 * torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    moments = Moments(mean, torch.ones_like(mean))
    read = model.condition(["a boat"] * 3)
    learn(model, [weight], Lesson(moments, read.rows, 2, rate), 3, torch.Generator().manual_seed(0))
    learnt = weight.detach().clone()
    assert weight.grad is None

    weight.data.copy_(before)
    optimizer = torch.optim.AdamW([weight], lr=rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        noisy, t, wanted = noised_batch(model.noise, moments, 2, generator)
        loss = (predict_noised(model, noisy, t, read.rows([0, 1])) - wanted).square().mean()
        (weight.grad,) = torch.autograd.grad(loss, [weight])
        optimizer.step()
    torch.testing.assert_close(learnt, weight.detach(), rtol=1e-5, atol=1e-6)


# --- a new adapter ----------------------------------------------------------------------------------------------------
def state_of(model: Model) -> tuple[object, ...]:
    """All that a block could leave on a denoiser, but for values."""
    modules = [(name, type(m), len(m._forward_hooks), len(m._buffers)) for name, m in model.denoiser.named_modules()]
    parameters = [(n, id(p), p.requires_grad, p.grad is None) for n, p in model.denoiser.named_parameters()]
    adapters = sorted(getattr(model.denoiser, "peft_config", {}))
    return modules, parameters, adapters, dict(model.adapters), dict(model.active), list(model.switches)


def test_a_new_adapter_is_trained_beside_the_erasers_and_leaves_no_trace(tmp_path: Path) -> None:
    model = small_sdxl(tmp_path)
    context = duo_context(model, tmp_path)
    with attacked_loss(context, "duo", attack_on="adapter", attack_lr=1e-2) as loss:
        values = {name: value.clone() for name, value in model.denoiser.state_dict().items()}
        before, plain = state_of(model), loss.drawn("unsafe", "after", 0).item()
        found = loss.added(0)
        with loss.attacked(0):
            assert state_of(model) != before
            assert loss.drawn("unsafe", "after", 0).item() != plain
            # Only what is new has learnt.
            assert all(torch.equal(value, values[name]) for name, value in model.denoiser.state_dict().items())
        assert state_of(model) == before
        assert all(torch.equal(value, values[name]) for name, value in model.denoiser.state_dict().items())
        assert loss.drawn("unsafe", "after", 0).item() == plain
    with attacked_loss(context, "duo", attack_on="adapter", attack_lr=1e-9) as loss:
        unattacked = loss.added(0)
    assert any(float(part.norm()) > 0 for part in found)  # of the eraser's tensors, with the new adapter in place
    assert not all(torch.allclose(a, b, rtol=1e-2) for a, b in zip(found, unattacked, strict=True))


def test_nothing_is_left_of_a_new_adapter_where_its_training_fails() -> None:
    model = load_model("mini", CPU)
    before = state_of(model)

    def failing(_rows: list[int]) -> Conditioning:
        raise RuntimeError

    lesson = Lesson(Moments(torch.zeros(1, 4, 16, 16), torch.zeros(1, 4, 16, 16)), failing, 1, 1e-3)
    with pytest.raises(RuntimeError), fresh_adapter(model, 2, torch.Generator()) as tensors:
        learn(model, tensors, lesson, 1, torch.Generator())
    assert state_of(model) == before


def output_of(model: Model) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    noisy, t = torch.randn(2, 4, 16, 16, generator=generator), torch.tensor([100, 700])
    return predict_noised(model, noisy, t, model.condition(["a red king", "a boat"])).float()


@torch.no_grad()
def test_a_new_adapter_is_what_it_would_be_in_the_weights() -> None:
    model = load_model("mini", CPU)
    whole, names = output_of(model), model.adapted_layers("all-attention")
    with fresh_adapter(model, 3, torch.Generator().manual_seed(0)) as tensors:
        assert torch.equal(output_of(model), whole)  # it begins as the identity
        assert len(tensors) == 2 * len(names)
        for up in tensors[1::2]:
            up.data = 0.05 * torch.randn(up.shape, generator=torch.Generator().manual_seed(up.shape[0]))
        beside = output_of(model)
    for name, down, up in zip(names, tensors[::2], tensors[1::2], strict=True):
        assert down.shape[0] == up.shape[1] == 3
        model.denoiser.get_parameter(f"{name}.weight").data += up @ down
    merged = output_of(model)
    assert not torch.allclose(merged, whole, atol=1e-2)
    torch.testing.assert_close(beside, merged, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_a_new_adapter_acts_in_half_precision_and_in_compiled_blocks() -> None:
    model = load_model("mini", CPU)
    model.denoiser.to(torch.bfloat16)
    block: Any = next(m for m in model.denoiser.modules() if type(m).__name__ == "BasicTransformerBlock")
    block.compile(backend="eager")  # the compiler's guards without its code
    inside = {f"{n}." for n, m in model.denoiser.named_modules() if m is block}.pop()
    layers = [n.startswith(inside) for n in model.adapted_layers("all-attention")]
    whole = output_of(model)
    with fresh_adapter(model, 2, torch.Generator().manual_seed(0)) as tensors:
        assert all(tensor.dtype == torch.float32 for tensor in tensors)
        for up in [up for up, of_block in zip(tensors[1::2], layers, strict=True) if of_block]:
            up.data += 1.0
        assert not torch.equal(output_of(model), whole)
    assert torch.equal(output_of(model), whole)


# --- in a run ---------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("attack_on", ["weights", "adapter"])
def test_an_edit_on_a_floor_of_the_text_encoder_is_trained_and_known_again(
    run_folder: Path, tmp_path: Path, attack_on: str
) -> None:
    folder = shutil.copytree(run_folder, tmp_path / "run", ignore=shutil.ignore_patterns("edits", "train"))
    options = {"batch": 2, "attack_steps": 1, "unrelated": 2, "sampling_steps": 2, "attack_on": attack_on}
    given = {
        "eraser": "robust-duo", "floor": "hirm", "wrap": "meta-unlearning", "wraps": {"meta-unlearning": options},
        "erasers": {name: OPTIONS[name] for name in ("robust-duo", "hirm")},
    }  # fmt: skip
    run = duo.open_run(folder, settings=given, quiet=True)
    duo.train(run)
    assert run.systems()[-1].name == "hirm+meta-unlearning-robust-duo"
    said: list[str] = []
    duo.train(duo.open_run(folder, settings=given, quiet=True), said.append)
    assert said[0].startswith("train: already done")
