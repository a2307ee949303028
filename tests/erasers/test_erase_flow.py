"""EraseFlow by its worked numbers: densities, the constant of a match, and gradients that are taken step by step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import Normal

from duo_unlearn.edits.files import read_edit
from duo_unlearn.erasers.erase_flow import (
    LOG_Z,
    EraseFlowLoss,
    EraseFlowSettings,
    log_density,
    log_ratio,
    match,
    used_steps,
)
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.families.ddim import Ddim, pure_noise, walk
from duo_unlearn.families.denoising import guided
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.families.noise import Diffusion
from duo_unlearn.families.registry import FAMILIES

from ..families import small_models as small
from ..slow import slow
from .small import CPU
from .words_alone import SAFE, UNSAFE, context_of

BETAS = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
STABLE_DIFFUSION = Diffusion(torch.cumprod(1 - BETAS, 0), "epsilon")
SHORT: dict[str, object] = {"sampling_steps": 4, "early": 1, "last": 2}


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", CPU)


@contextmanager
def loss_of(model: Model, folder: Path, *, safe: str = SAFE, **options: object) -> Iterator[EraseFlowLoss]:
    """The loss as a training has it, with the adapter on."""
    make = ERASERS.get("eraseflow").course
    assert make is not None
    with make(context_of("eraseflow", model, folder, SHORT | options, safe=safe)) as course:
        assert isinstance(course.descent.loss, EraseFlowLoss)
        yield course.descent.loss


def moved(loss: EraseFlowLoss) -> EraseFlowLoss:
    """The loss of an adapter that does something, and the same in every test."""
    generator = torch.Generator().manual_seed(0)
    for tensor in loss.tensors:
        tensor.data = 0.02 * torch.randn(tensor.shape, generator=generator)
    return loss


def test_a_match_has_the_sum_of_the_schedule_and_of_the_steps_chosen() -> None:
    # Σ ½ log(σ_q²/σ²) of Stable Diffusion's schedule.
    fifty, twenty = Ddim.of(STABLE_DIFFUSION, 50), Ddim.of(STABLE_DIFFUSION, 20)
    assert match(fifty, range(40, 50)) == pytest.approx(2.77, abs=5e-3)
    assert match(fifty, [48]) == pytest.approx(1.22, abs=5e-3)
    assert match(fifty, range(40)) / 4 == pytest.approx(0.19, abs=5e-3)
    assert match(twenty, range(20)) == pytest.approx(3.53, abs=5e-3)
    assert match(fifty, []) == 0
    # It is what their σ's say.
    kept = fifty.signal / fifty.following
    by_hand = sum(0.5 * torch.log((1 - kept[i]) / fifty.sigma(i) ** 2) for i in range(50))
    assert match(fifty, range(50)) == pytest.approx(float(by_hand), rel=1e-9)


def test_ten_of_the_first_forty_steps_and_the_last_ten_are_used() -> None:
    schedule, settings = Ddim.of(STABLE_DIFFUSION, 50), EraseFlowSettings()
    drawn = [used_steps(settings, torch.Generator().manual_seed(seed)) for seed in range(400)]
    assert all(len(set(steps)) == 20 and steps[10:] == list(range(40, 50)) for steps in drawn)
    assert {step for steps in drawn for step in steps} == set(range(50))
    assert sum(match(schedule, steps) for steps in drawn) / len(drawn) == pytest.approx(2.96, abs=0.01)
    fewer = EraseFlowSettings(sampling_steps=4)
    assert used_steps(fewer, torch.Generator()) == [0, 1, 2, 3]
    without_last = EraseFlowSettings(sampling_steps=6, early=0, last=4, left_out=1)
    assert used_steps(without_last, torch.Generator()) == [2, 3, 4]
    for options in ({"last": 2, "left_out": 2}, {"sampling_steps": 3, "left_out": 3}):
        with pytest.raises(ValidationError, match="less than last"):
            EraseFlowSettings.model_validate(options)


def test_the_adapter_is_on_every_projection_of_both_attentions(model: Model, tmp_path: Path) -> None:
    make = ERASERS.get("eraseflow").course
    assert make is not None
    with make(context_of("eraseflow", model, tmp_path, SHORT)) as course:
        adapted = {name.partition(".lora_")[0] for name in course.descent.tensors if name != "log_z"}
    every = {
        f"{block}.{which}.{projection}"
        for block, _ in model.denoiser.named_modules()
        if block.endswith("transformer_blocks.0")
        for which in ("attn1", "attn2")
        for projection in ("to_q", "to_k", "to_v", "to_out.0")
    }
    assert adapted == every


def gaussian(sample: Tensor, mean: Tensor, sigma: float) -> Tensor:
    density: Tensor = Normal(mean, sigma).log_prob(sample).mean()  # type: ignore[no-untyped-call]
    return density


def test_densities_are_those_of_gaussians() -> None:
    before, after, prediction = torch.randn((3, 1, 4, 2, 2), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_density(after, before, 0.3), gaussian(after, before, 0.3))
    schedule, step = Ddim.of(STABLE_DIFFUSION, 50), 30
    kept = float(schedule.signal[step] / schedule.following[step])
    mean = schedule.mean(step, before, prediction, 1.0)
    forward, backward = (
        gaussian(after, mean, schedule.sigma(step)),
        gaussian(before, kept**0.5 * after, (1 - kept) ** 0.5),
    )
    torch.testing.assert_close(log_ratio(schedule, step, before, after, prediction), forward - backward)


def path_of(loss: EraseFlowLoss, words: str) -> tuple[Tensor, list[Tensor]]:
    """A path under a prompt, and the noises of its steps."""
    generator, count = torch.Generator().manual_seed(1), loss.settings.sampling_steps
    start, *noises = [pure_noise(loss.model, 1, generator) for _ in range(count + 1)]
    given = (loss.model, loss.schedule, start, loss.model.condition([words]), loss.empty)
    return torch.stack(walk(*given, guidance=5.0, steps=count, noises=noises)), noises


def term(loss: EraseFlowLoss, path: Tensor, step: int, words: str) -> Tensor:
    """log p − log q of one step of a path under a prompt."""
    t, asked = int(loss.schedule.timesteps[step]), loss.model.condition([words])
    prediction = guided(loss.model, path[step], t, asked, loss.empty, 5.0)
    return log_ratio(loss.schedule, step, path[step], path[step + 1], prediction)


def test_the_anchor_itself_is_as_likely_as_its_own_noise_says(model: Model, tmp_path: Path) -> None:
    with loss_of(model, tmp_path) as loss, torch.no_grad():
        (path, noises), anchor = path_of(loss, SAFE), model.condition([SAFE])
        for step, z in enumerate(noises):
            prediction = guided(model, path[step], int(loss.schedule.timesteps[step]), anchor, loss.empty, 5.0)
            mean, sigma = loss.schedule.mean(step, path[step], prediction, 1.0), loss.schedule.sigma(step)
            # −½ mean z² − log σ − ½ log 2π
            expected = -0.5 * z.square().mean() - torch.tensor(2 * torch.pi * sigma**2).log() / 2
            torch.testing.assert_close(log_density(path[step + 1], mean, sigma), expected, rtol=0, atol=2e-5)


@pytest.mark.slow
def test_a_match_is_near_its_constant_and_another_prompt_is_less_likely(model: Model, tmp_path: Path) -> None:
    with loss_of(model, tmp_path, sampling_steps=20) as loss, torch.no_grad():
        path, _ = path_of(loss, SAFE)
        # Of the last steps, which hold nearly all of it.
        matched, other = (sum(float(term(loss, path, i, text)) for i in range(10, 20)) for text in (SAFE, UNSAFE))
        assert matched == pytest.approx(match(loss.schedule, range(10, 20)), abs=0.5)
    assert other < matched - 0.5


@pytest.mark.parametrize("at_once", [*slow([1]), 2])
def test_gradients_of_some_steps_at_a_time_are_those_of_all(model: Model, tmp_path: Path, at_once: int) -> None:
    with loss_of(model, tmp_path, at_once=at_once) as loss:
        (path, _), target = path_of(moved(loss), SAFE), model.condition([UNSAFE])
        whole = torch.stack([term(loss, path, step, UNSAFE) for step in (1, 2, 3)]).sum()
        expected = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(whole, loss.tensors)])
        ratio = loss.ratio(path, [1, 2, 3], target)
        torch.testing.assert_close(ratio, whole)
        found = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(ratio, loss.tensors)])
        assert float(expected.abs().max()) > 1e-3
        # Rows of one batch are rounded otherwise than alone: 9e-5 of the gradient.
        assert float((found - expected).norm()) < 1e-3 * float(expected.norm())


@pytest.mark.slow
def test_the_gradient_is_twice_the_bracket_and_none_where_it_is_zero(model: Model, tmp_path: Path) -> None:
    with loss_of(model, tmp_path, refresh=0) as loss:
        moved(loss)(0)
        path, used = loss.memory["path"], used_steps(loss.settings, torch.Generator())
        ratio = loss.ratio(path, used, model.condition([UNSAFE]))
        slope = torch.autograd.grad(ratio, loss.tensors, retain_graph=True)
        bracket = float(ratio.detach()) - 3.0
        found = torch.autograd.grad((ratio - 3.0).square(), loss.tensors)
        for one, other in zip(found, slope, strict=True):
            torch.testing.assert_close(one, 2 * bracket * other)
        # Put log Z where the bracket of step 0 is zero.
        value = loss(0)
        value.backward()  # type: ignore[no-untyped-call]
        assert loss.log_z.grad is not None
        torch.testing.assert_close(value.detach(), (loss.log_z.grad / 2).square())
        loss.log_z.data -= loss.log_z.grad / 2
        again = torch.autograd.grad(loss(0), [*loss.tensors, loss.log_z])
        assert max(float(gradient.abs().max()) for gradient in again) < 1e-3


@pytest.mark.parametrize("log_beta", [None, *slow([2.5])])
def test_log_beta_is_that_of_a_match_unless_it_is_given(model: Model, tmp_path: Path, log_beta: float | None) -> None:
    # All steps are used, and the target is the anchor.
    with loss_of(model, tmp_path, safe=UNSAFE, log_beta=log_beta, last=4) as loss:
        value = float(loss(0).detach())
        ratio = float(loss.ratio(loss.memory["path"], range(4), model.condition([UNSAFE])).detach())
        constant = match(loss.schedule, range(4)) if log_beta is None else 2.5 - LOG_Z
    assert value == pytest.approx((ratio - constant) ** 2, rel=1e-4)


@pytest.mark.slow
def test_paths_are_sampled_anew_up_to_the_refreshing_step(model: Model, tmp_path: Path) -> None:
    with loss_of(model, tmp_path, refresh=1) as loss:
        paths = []
        for step in range(3):
            loss(step)
            paths.append(loss.memory["path"].clone())
    assert not torch.equal(paths[0], paths[1])
    assert torch.equal(paths[1], paths[2])


def test_paths_that_are_sampled_together_are_those_of_the_model_at_the_first(model: Model, tmp_path: Path) -> None:
    with loss_of(model, tmp_path, steps=3) as loss, torch.no_grad():
        alone = [loss._paths([step]) for step in range(3)]
    with loss_of(model, tmp_path, steps=3, paths_at_once=2) as loss:
        loss(0)
        together = loss.memory["path"].clone()
        moved(loss)(1)
        kept = loss.memory["path"].clone()
        loss(2)
        last = loss.memory["path"].clone()
    torch.testing.assert_close(together, torch.cat(alone[:2], 1), rtol=0, atol=1e-4)
    assert torch.equal(kept, together)
    # Of the adapter that moved, and no step follows.
    assert last.shape[1] == 1
    assert not torch.allclose(last, alone[2], atol=1e-2)


@pytest.mark.slow
def test_training_makes_a_safe_path_likely_under_the_unsafe_prompt(model: Model, tmp_path: Path) -> None:
    options = {"steps": 4, "lr": 5e-3, "refresh": 0, "early": 0, "last": 4}
    context = context_of("eraseflow", model, tmp_path, SHORT | options)
    ERASERS.get("eraseflow").erase(context, "eraseflow")
    lines = context.run.metrics("eraseflow").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in lines]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.slow
def test_it_works_on_sdxl_and_says_why_a_rectified_flow_cannot_have_it(tmp_path: Path) -> None:
    eraser = ERASERS.get("eraseflow")
    model = load_model(str(small.sdxl(tmp_path / "sdxl")), CPU, resolution=small.RESOLUTION)
    noise, words = pure_noise(model, 1, torch.Generator().manual_seed(0)), model.condition([UNSAFE])
    before = model.predict(noise, torch.tensor([500]), words)
    context = context_of("eraseflow", model, tmp_path, SHORT | {"steps": 2})
    assert eraser.erase(context, "eraseflow") == "done"
    assert torch.equal(model.predict(noise, torch.tensor([500]), words), before)
    with read_edit(context.run.edit("eraseflow")).on(model):
        assert not torch.equal(model.predict(noise, torch.tensor([500]), words), before)
    for name in ("sd3", "flux"):
        assert "rectified flow" in str(eraser.why_not(FAMILIES.get(name)))
    assert all(eraser.why_not(FAMILIES.get(name)) is None for name in ("sd1", "sd2", "sdxl"))
