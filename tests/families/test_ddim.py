"""Our DDIM step is diffusers' own, for both kinds of prediction, with and without noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler

from duo_unlearn.errors import DuoError
from duo_unlearn.families.ddim import Ddim, ddim_of, walk
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.families.noise import Diffusion
from duo_unlearn.records import Prediction

from . import small_models as small


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_step_is_that_of_diffusers(prediction: Prediction, eta: float) -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type=prediction,
    )  # fmt: skip
    scheduler.set_timesteps(50)
    schedule = Ddim.of(Diffusion(scheduler.alphas_cumprod, prediction), 50)
    assert schedule.timesteps.tolist() == scheduler.timesteps.tolist()
    generator = torch.Generator().manual_seed(0)
    latents, output, noise = torch.randn((3, 1, 4, 8, 8), generator=generator)
    for step in (0, 20, 49):
        t = scheduler.timesteps[step]
        stepped = scheduler.step(output, t, latents, eta=eta, variance_noise=noise if eta else None)
        ours = schedule.mean(step, latents, output, eta) + schedule.sigma(step, eta) * noise
        torch.testing.assert_close(ours.float(), stepped.prev_sample, rtol=1e-4, atol=1e-5)
        clean, _ = schedule.split(step, latents, output)
        torch.testing.assert_close(clean.float(), stepped.pred_original_sample, rtol=1e-4, atol=1e-5)


def test_a_path_starts_at_its_noise_and_ends_at_a_picture_of_the_prompt(model: Model) -> None:
    start = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(0))
    asked, empty = model.condition(["a red knight in the snow"]), model.condition([""])
    path = walk(model, ddim_of(model, 10), start, asked, empty, guidance=3.0, steps=10)
    assert len(path) == 11
    assert torch.equal(path[0], start)
    # Latents of pictures are nothing like noise: neighbours resemble one another.
    last = path[-1]
    assert (last[..., 1:] - last[..., :-1]).square().mean() < 0.7 * (start[..., 1:] - start[..., :-1]).square().mean()
    shorter = walk(model, ddim_of(model, 10), start, asked, empty, guidance=3.0, steps=4)
    assert torch.equal(shorter[-1], path[4])


def test_a_rectified_flow_has_no_such_steps(tmp_path: Path) -> None:
    flow = load_model(str(small.sd3(tmp_path / "sd3")), torch.device("cpu"), resolution=small.RESOLUTION)
    with pytest.raises(DuoError, match="a diffusion's sampler"):
        ddim_of(flow, 10)
