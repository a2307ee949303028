"""The noise process: numbers worked by hand, diffusers' arithmetic, and the facts of Stable Diffusion's schedule."""

from __future__ import annotations

import pytest
import torch

from duo_unlearn.erasers.duo.objective import Reference, duo_loss
from duo_unlearn.families.noise import Diffusion, Flow, flow_sigmas
from duo_unlearn.records import Prediction

ALPHAS = torch.tensor([0.64, 0.36])  # √ᾱ = 0.8, 0.6 and √(1−ᾱ) = 0.6, 0.8


def two(first: float, second: float) -> torch.Tensor:
    return torch.tensor([first, second], dtype=torch.float32).view(2, 1, 1, 1)


def stable_diffusion(prediction: Prediction = "epsilon") -> Diffusion:
    """SD's scaled-linear schedule: β linear in its square root, from 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    return Diffusion((1 - betas).cumprod(0).float(), prediction)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_add_noise_worked(prediction: Prediction) -> None:
    noisy = Diffusion(ALPHAS, prediction).add_noise(two(1, 1), two(2, 2), torch.tensor([0, 1]))
    assert noisy.flatten().tolist() == pytest.approx([0.8 + 1.2, 0.6 + 1.6])


def test_epsilon_target_is_the_noise() -> None:
    eps = two(2, 3)
    assert torch.equal(Diffusion(ALPHAS, "epsilon").target(two(1, 5), eps, torch.tensor([0, 1])), eps)


def test_v_target_worked() -> None:
    target = Diffusion(ALPHAS, "v_prediction").target(two(1, 1), two(2, 2), torch.tensor([0, 1]))
    assert target.flatten().tolist() == pytest.approx([0.8 * 2 - 0.6, 0.6 * 2 - 0.8])


def test_v_target_depends_on_the_member_of_a_pair() -> None:
    safe, unsafe, eps, t = two(1, 1), two(-1, 3), two(0.5, 0.5), torch.tensor([0, 1])
    v, epsilon = Diffusion(ALPHAS, "v_prediction"), Diffusion(ALPHAS, "epsilon")
    difference = v.target(safe, eps, t) - v.target(unsafe, eps, t)
    assert difference.flatten().tolist() == pytest.approx([-0.6 * 2, -0.8 * -2])
    assert torch.equal(epsilon.target(safe, eps, t), epsilon.target(unsafe, eps, t))


def test_x_and_eps_come_back_from_the_noisy_latents_and_v() -> None:
    x, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    process, t = Diffusion(ALPHAS, "v_prediction"), torch.tensor([0, 1])
    noisy, v = process.add_noise(x, eps, t), process.target(x, eps, t)
    signal, noise = two(0.8, 0.6), two(0.6, 0.8)
    torch.testing.assert_close(signal * noisy - noise * v, x)
    torch.testing.assert_close(noise * noisy + signal * v, eps)


@pytest.mark.parametrize(
    "process", [Diffusion(ALPHAS, "epsilon"), Diffusion(ALPHAS, "v_prediction"), Flow(torch.tensor([0.25, 1.0]))]
)
def test_the_right_prediction_stands_for_the_clean_latents(process: Diffusion | Flow) -> None:
    x, eps, t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4), torch.tensor([0, 1])
    noisy = process.add_noise(x, eps, t)
    kept, slope = process.clean_line(t, noisy)
    torch.testing.assert_close(kept * noisy + slope * process.target(x, eps, t), x)
    packed = noisy.flatten(2).transpose(1, 2)  # as some pipelines lay latents out
    assert process.clean_line(t, packed)[1].flatten().tolist() == slope.flatten().tolist()


@pytest.mark.parametrize(("t", "factor"), [(999, 14.65), (749, 4.2), (500, 1.9)])
def test_how_far_an_error_in_eps_moves_the_first_guess(t: int, factor: float) -> None:
    """1/√ᾱ of SD1.4, as the authors' choice of T rests on it (method.md §2)."""
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    signal = stable_diffusion().add_noise(one, torch.zeros_like(one), torch.tensor([t])).item()
    assert 1 / signal == pytest.approx(factor, rel=2e-3)


def test_the_last_timestep_of_stable_diffusion() -> None:
    assert stable_diffusion().last_timestep == 999


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_of_the_latents_is_kept(dtype: torch.dtype) -> None:
    x, t = torch.ones(2, 1, 1, 1, dtype=dtype), torch.tensor([0, 1])
    process = Diffusion(ALPHAS, "v_prediction")
    assert process.add_noise(x, x, t).dtype == process.target(x, x, t).dtype == dtype


def test_agrees_with_diffusers() -> None:
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler

    theirs = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    process = stable_diffusion("v_prediction")
    x, eps, t = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8), torch.tensor([0, 321, 999])
    torch.testing.assert_close(process.alphas_cumprod, theirs.alphas_cumprod, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(process.add_noise(x, eps, t), theirs.add_noise(x, eps, t), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(process.target(x, eps, t), theirs.get_velocity(x, eps, t), rtol=1e-4, atol=1e-5)


def test_flow_worked() -> None:
    flow, t = Flow(torch.tensor([0.25, 1.0])), torch.tensor([0, 1])
    assert flow.add_noise(two(4, 4), two(8, 8), t).flatten().tolist() == [5.0, 8.0]
    assert flow.target(two(4, 4), two(8, 8), t).flatten().tolist() == [4.0, 4.0]
    assert flow.network_time(t).tolist() == [250.0, 1000.0]


def test_flow_sigmas_ascend_to_one() -> None:
    """u = 1/4, 1/2, 3/4, 1, shifted by 3: 3u / (1 + 2u)."""
    assert flow_sigmas(4, shift=3.0).tolist() == pytest.approx([0.5, 0.75, 0.9, 1.0])
    assert flow_sigmas(4).tolist() == pytest.approx([0.25, 0.5, 0.75, 1.0])


@pytest.mark.parametrize("rows", [1, 3])
def test_timesteps_of_the_authors_range_are_the_less_noisy_ones(rows: int) -> None:
    """Their SD3 script indexes a descending list: t in 0..749 is then the noisiest three quarters."""
    flow, t = Flow(flow_sigmas(1000, shift=3.0)), torch.full((rows,), 749)
    signal = flow.add_noise(torch.ones(rows, 1, 1, 1), torch.zeros(rows, 1, 1, 1), t)
    assert signal.flatten().tolist() == pytest.approx([0.1] * rows, abs=1e-3)  # σ = 3·0.75 / 2.5 = 0.9
    assert flow.add_noise(torch.ones(rows, 1, 1, 1), torch.zeros(rows, 1, 1, 1), 0 * t).min() > 0.99


@pytest.mark.parametrize("rows", [1, 3])
def test_the_prior_is_at_sigma_one_on_the_raw_prediction(rows: int) -> None:
    """Theirs sits at σ = 0.003 with a pure-noise input and is scaled by σ² = 9e-6; ours is the plain mean square."""
    flow = Flow(flow_sigmas(1000, shift=3.0))
    last = torch.full((rows,), flow.last_timestep)
    x, eps = torch.full((rows, 1, 2, 2), 7.0), torch.randn(rows, 1, 2, 2)
    assert torch.equal(flow.add_noise(x, eps, last), eps)
    assert flow.network_time(last).tolist() == [1000.0] * rows
    pairs = torch.zeros(2 * rows, 1, 2, 2)
    terms = duo_loss(pairs, Reference.of(pairs, pairs, eps), pairs, eps + 0.5, beta=1, prior_weight=1)
    assert float(terms.prior) == pytest.approx(0.25)


def test_the_flow_target_depends_on_the_member_of_a_pair() -> None:
    safe, unsafe, eps, t = two(1, 1), two(-1, 3), two(0.5, 0.5), torch.tensor([0, 1])
    flow = Flow(torch.tensor([0.25, 1.0]))
    assert (flow.target(safe, eps, t) - flow.target(unsafe, eps, t)).flatten().tolist() == [-2.0, 2.0]
