"""Meta-Unlearning: its first-order term by hand, and what a wrapped eraser does in a run."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import duo_unlearn as duo
from duo_unlearn.cli.main import main
from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.provenance import edit_file
from duo_unlearn.erasers import descent
from duo_unlearn.erasers.interface import EraserContext
from duo_unlearn.erasers.meta_unlearning import (
    META_UNLEARNING,
    MetaLoss,
    MetaUnlearningSettings,
    weighted_gradients,
)
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.erasers.simulated_attack import fine_tuned
from duo_unlearn.erasers.wraps import WRAPS, why_not_wrapped, wrapped
from duo_unlearn.errors import DuoError
from duo_unlearn.families.load import load_model
from duo_unlearn.settings.check import find_faults
from duo_unlearn.storage.files import read_tensors
from duo_unlearn.storage.forms import deciding

from .small import CPU, OPTIONS, killed_at
from .small_sdxl import context_on, small_sdxl

QUICK = {"batch": 2, "attack_steps": 1, "unrelated": 2, "sampling_steps": 2, "attack_lr": 1e-3}
"""Options of the wrap that keep a test small."""


# --- the first-order term, on L = ½ (θ − a)² --------------------------------------------------------------------------
@pytest.mark.parametrize("tau", [0.0, 0.25, 0.5])
def test_the_term_of_an_attacked_quadratic_by_hand(tau: float) -> None:
    start, a, gamma = torch.tensor([0.3, 0.9]), torch.tensor([0.5, 0.2]), 0.1
    theta = start.clone().requires_grad_(True)

    def loss(_step: int = 0) -> Tensor:
        return 0.5 * (theta - a).square().sum()

    # θ' = θ − τ (θ − a), and −γ ∇L(θ') = −γ (θ' − a) = −γ (1 − τ) (θ − a).
    with fine_tuned([theta], torch.optim.SGD([theta], lr=tau), loss, steps=1):
        torch.testing.assert_close(theta.detach(), start - tau * (start - a))
        (term,) = weighted_gradients([theta], [(-gamma, loss)])
    torch.testing.assert_close(term, -gamma * (1 - tau) * (start - a))
    assert torch.equal(theta.detach(), start)
    # A descent along it goes away from a.
    assert bool(((start - term - a).abs() > (start - a).abs()).all())


def test_weights_add_up_and_a_term_of_weight_0_is_not_called() -> None:
    theta, other = torch.tensor([2.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)

    def never() -> Tensor:
        raise AssertionError

    found = weighted_gradients(
        [theta, other], [(2.0, lambda: theta.square().sum()), (-0.5, (3 * theta).sum), (0.0, never)]
    )
    # 2 · 2θ − 0.5 · 3; nothing depends on the other one.
    assert [float(part) for part in found] == [6.5, 0.0]


def test_the_attackers_steps_are_clipped_and_undone_even_where_they_fail() -> None:
    theta = torch.tensor([10.0], requires_grad=True)
    with fine_tuned([theta], torch.optim.SGD([theta], lr=1.0), lambda _step: theta.square().sum(), steps=3):
        assert theta.item() == pytest.approx(7.0, abs=1e-4)  # three steps of norm 1

    def failing(step: int) -> Tensor:
        if step:
            raise RuntimeError
        return theta.square().sum()

    with pytest.raises(RuntimeError), fine_tuned([theta], torch.optim.SGD([theta], lr=1.0), failing, steps=2):
        pass
    assert theta.item() == 10.0


# --- on the mini model ------------------------------------------------------------------------------------------------
def gradients_of(
    context: EraserContext, **options: object
) -> tuple[float, float, dict[str, Tensor], dict[str, Tensor]]:
    """Loss of step 0, plain and wrapped, and the gradients of both, by tensor."""
    make = ERASERS.get("esd-x").course
    assert make is not None
    settings = MetaUnlearningSettings.model_validate(QUICK | options)
    with META_UNLEARNING.course(make, context, settings) as course:
        tensors = course.descent.tensors
        loss = course.descent.loss
        assert isinstance(loss, MetaLoss)
        plain = loss.inner(0)
        before = dict(zip(tensors, torch.autograd.grad(plain, list(tensors.values())), strict=True))
        values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        whole = loss(0)
        after = dict(zip(tensors, torch.autograd.grad(whole, list(tensors.values())), strict=True))
        assert all(torch.equal(tensor, values[name]) for name, tensor in tensors.items())
    return plain.item(), whole.item(), before, after


def test_the_value_is_the_erasers_and_the_gradient_has_the_terms(tmp_path: Path) -> None:
    context = context_on(load_model("mini", CPU), tmp_path, "esd-x", steps=1, latents="pairs")
    none = {f"{what}": 0.0 for what in ("keep_unrelated", "keep_related", "spoil_unsafe", "spoil_related")}
    plain, whole, before, after = gradients_of(context, **none)
    assert plain == whole
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not list(context.run.moments.parent.glob("kept-*"))  # not needed, so not sampled
    plain, whole, before, after = gradients_of(context, **none | {"spoil_unsafe": 0.5})
    assert whole == pytest.approx(plain)
    once = {name: after[name] - before[name] for name in before}
    twice = gradients_of(context, **none | {"spoil_unsafe": 1.0})[3]
    name = max(once, key=lambda key: float(once[key].norm()))
    torch.testing.assert_close(twice[name] - before[name], 2 * once[name], rtol=1e-2, atol=1e-6)


def test_unrelated_pictures_are_sampled_once_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from duo_unlearn.erasers.captioned import kept_pictures
    from duo_unlearn.erasers.words import kept_texts

    model = load_model("mini", CPU)
    context = context_on(model, tmp_path, "esd-x")
    prompts = kept_texts(context, 3)
    first = kept_pictures(context, prompts, steps=2, guidance=3.0)
    assert first.moments.mean.shape == (3, 4, 16, 16)
    assert not any("sword" in text and "no sword" not in text and "without" not in text for text in first.captions)
    monkeypatch.setattr(model, "sample", None)
    again = kept_pictures(context, prompts, steps=2, guidance=3.0)
    assert torch.equal(first.moments.mean, again.moments.mean)
    assert torch.equal(first.moments.std, again.moments.std)
    # Two steps of three pictures, each under its prompt and under none.
    assert first.passes == again.passes == 2 * 3 * 2


@pytest.mark.slow
def test_an_attack_on_the_weights_leaves_them_and_the_adapter_as_they_were(tmp_path: Path) -> None:
    model = load_model("mini", CPU)
    context = context_on(model, tmp_path, "duo", max_train_steps=1, rank=2, prior_weight=0.0, captions="unsafe")
    make = ERASERS.get("duo").course
    assert make is not None

    def added(**options: object) -> list[Tensor]:
        given = QUICK | {"keep_unrelated": 0.0, "keep_related": 0.0, "attack_lr": 1e-2} | options
        with META_UNLEARNING.course(make, context, MetaUnlearningSettings.model_validate(given)) as course:
            loss = course.descent.loss
            assert isinstance(loss, MetaLoss)
            before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.denoiser.named_parameters()}
            found = loss.added(0)
            with loss.attacked(0):
                moved = {n for n, p in model.denoiser.named_parameters() if not torch.equal(p, before[n][0])}
            for name, parameter in model.denoiser.named_parameters():
                assert torch.equal(parameter, before[name][0])
                assert parameter.requires_grad == before[name][1]
            is_adapter = {"lora_" in name for name in moved}
            assert is_adapter == {options.get("attack_on") != "weights"}
            return found

    weights, adapter = added(attack_on="weights"), added()
    assert any(float(part.norm()) > 0 for part in weights)  # of the adapter's tensors, at the moved weights
    assert [part.shape for part in weights] == [part.shape for part in adapter]
    assert not all(torch.equal(one, other) for one, other in zip(weights, adapter, strict=True))
    # An edit of before there was this option is known again.
    assert "attack_on" not in deciding(MetaUnlearningSettings())
    model.denoiser.to(torch.bfloat16)
    with pytest.raises(DuoError, match="needs them in float32"):
        added(attack_on="weights")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("hirm", {"steps": 1}, "text_encoder"),
        ("duo", {"max_train_steps": 1, "rank": 2, "prior_weight": 0.0}, "unet"),
    ],
)
def test_encoders_and_adapters_are_wrapped_too(tmp_path: Path, name: str, options: dict[str, Any], part: str) -> None:
    context = context_on(load_model("mini", CPU), tmp_path, name, **options)
    eraser = wrapped(ERASERS.get(name), "meta-unlearning", QUICK)
    assert (eraser.name, eraser.trains) == (f"meta-unlearning-{name}", False)
    assert eraser.erase(context, eraser.name) == "done"
    assert eraser.erase(context, eraser.name) == "already done"
    edit = read_edit(context.run.edit(eraser.name), eraser.name)
    assert edit.parts == (part,)
    assert edit.provenance["wrap"]["settings"]["attack_steps"] == 1
    other = wrapped(ERASERS.get(name), "meta-unlearning", QUICK | {"spoil_related": 0.0})
    assert other.erase(context, other.name) == "done"  # other options of the wrap are another training


@pytest.mark.slow
def test_a_text_encoder_is_attacked_and_kept_through_its_own_states(tmp_path: Path) -> None:
    context = context_on(load_model("mini", CPU), tmp_path, "hirm", steps=1)
    make = ERASERS.get("hirm").course
    assert make is not None
    with META_UNLEARNING.course(make, context, MetaUnlearningSettings.model_validate(QUICK)) as course:
        loss = course.descent.loss
        assert isinstance(loss, MetaLoss)
        assert any(float(gradient.norm()) > 0 for gradient in loss.added(0))


def test_it_works_on_a_small_sdxl(tmp_path: Path) -> None:
    model = small_sdxl(tmp_path)
    context = context_on(model, tmp_path / "run", "esd-x", steps=1, latents="pairs")
    eraser = wrapped(ERASERS.get("esd-x"), "meta-unlearning", QUICK)
    assert eraser.erase(context, eraser.name) == "done"


# --- in a run ---------------------------------------------------------------------------------------------------------
def settings_of(wrap: str | None) -> dict[str, object]:
    return {
        "eraser": "esd-x",
        "wrap": wrap,
        "erasers": {"esd-x": OPTIONS["esd-x"]},
        "wraps": {"meta-unlearning": QUICK},
    }


def tensors_of(folder: Path, wrap: str | None = "meta-unlearning") -> dict[str, Tensor]:
    return read_tensors(edit_file(duo.train(duo.open_run(folder, settings=settings_of(wrap), quiet=True))))[0]


@pytest.mark.slow
def test_a_wrapped_esd_differs_and_resumes_bit_for_bit(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "CHECKPOINT_EVERY", 1)
    whole = shutil.copytree(run_folder, tmp_path / "whole", ignore=shutil.ignore_patterns("edits", "train"))
    plain = tensors_of(whole, None)
    expected = tensors_of(whole)
    assert plain.keys() == expected.keys()
    assert any(not torch.equal(plain[name], expected[name]) for name in plain)
    names = [system.name for system in duo.open_run(whole, quiet=True).systems()]
    assert names == ["original", "meta-unlearning-esd-x"]

    killed = shutil.copytree(run_folder, tmp_path / "killed", ignore=shutil.ignore_patterns("edits", "train"))
    with killed_at(monkeypatch, 2):
        tensors_of(killed)
    again = tensors_of(killed)
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    passes = {
        name: read_edit(whole / "edits" / name, name).provenance["passes"]
        for name in ("esd-x", "meta-unlearning-esd-x")
    }
    # Two steps: two pictures each of two kept, the attack, and two spoilt losses. And two steps of two unrelated
    # pictures, each under its prompt and under none.
    assert passes["meta-unlearning-esd-x"] - passes["esd-x"] == 2 * 2 * 5 + 2 * 2 * 2


@pytest.mark.parametrize("eraser", ["uce", "rece"])
def test_a_closed_form_is_refused_before_pairs_are_made(
    eraser: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["duo", "erase", "-o", str(tmp_path / "run"), "--eraser", eraser, "--wrap", "meta-unlearning"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr().err
    lines = printed[printed.index("Error:") :].strip().splitlines()
    assert (ended.value.code, len(lines)) == (1, 3)
    assert "closed form" in lines[1]
    assert not (tmp_path / "run" / "pairs").exists()
    check = find_faults({"output": str(tmp_path / "run"), "eraser": eraser, "wrap": "meta-unlearning"})
    assert any("cannot be wrapped" in str(fault) for fault in check.faults)


def test_every_eraser_that_trains_can_be_wrapped() -> None:
    able = {name for name in ERASERS.names() if why_not_wrapped(ERASERS.get(name)) is None}
    assert {"duo", "dcpo", "esd-x", "esd-u", "salun", "hirm"} <= able
    assert able.isdisjoint({"uce", "rece"})


@pytest.mark.parametrize("name", WRAPS.names())
def test_every_wrap_says_what_it_is(name: str) -> None:
    wrap = WRAPS.get(name)
    assert (wrap.name, bool(wrap.title)) == (name, True)
    assert wrap.settings.model_validate({}).model_dump().keys() == wrap.settings.model_fields.keys()
    assert all(field.description for field in wrap.settings.model_fields.values())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"wrap": "meta"}, "unknown wrap"),
        ({"wraps": {"meta-unlearning": {"bach": 3}}}, "did you mean 'batch'"),
        ({"wraps": {"meta-unlearning": {"spoil_unsafe": -1}}}, "spoil_unsafe"),
    ],
)
def test_bad_settings_of_a_wrap_are_named(given: dict[str, object], said: str) -> None:
    assert any(said in str(fault) for fault in find_faults(given).faults)
