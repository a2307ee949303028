"""The path between noise and picture: its steps and their inverse, and pipelines that follow it on every family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.families.ddim import Ddim
from duo_unlearn.families.denoising import guided
from duo_unlearn.families.interface import Hooks, Model, SampleRequest, Step, Trajectory
from duo_unlearn.families.load import load_model
from duo_unlearn.families.noise import Diffusion, Flow, flow_sigmas
from duo_unlearn.families.ode import Ode, noise_of
from duo_unlearn.mini.model.bundle import weights_folder

from ..slow import slow_but
from . import small_models as small
from .small_llms import LLMS

MAKERS: dict[str, Callable[[Path], Path]] = {
    "mini": lambda _folder: weights_folder(),
    "sd1": small.sd1,
    "sdxl": small.sdxl,
    "sd3": lambda folder: small.sd3(folder, with_t5=False),
    "flux-dev": small.flux,
    **LLMS,
}
STEPS = 4


@pytest.fixture(scope="module", params=slow_but(sorted(MAKERS), ("flux-dev", "sd1", "sd3", "sdxl")))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = MAKERS[request.param](tmp_path_factory.mktemp("models") / request.param)
    return load_model(str(folder), torch.device("cpu"), resolution=small.RESOLUTION)


@pytest.fixture
def decoded(model: Model, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Every batch of latents that the pipeline gives its VAE, scaled as the denoiser reads them."""
    seen: list[Tensor] = []
    vae, own, shape = model.pipe.vae, model.pipe.vae.decode, noise_of(model, [0]).shape
    # How the family puts the VAE's scale back, which is linear in each number, and where it puts that number.
    told: list[Tensor] = []

    def decode(raw: Tensor, *rest: Any, **named: Any) -> Any:
        told.append(raw.flatten(1))
        if len(told) > 3:
            scaled = torch.empty_like(told[-1])
            scaled[:, place] = (told[-1] - shift) / scale
            seen.append(scaled.view(-1, *shape[1:]))
        return own(raw, *rest, **named)

    monkeypatch.setattr(vae, "decode", decode)
    numbers = torch.arange(float(torch.Size(shape).numel())).view(shape)
    for known in (torch.zeros(shape), torch.ones(shape), numbers):
        model.kind.latents.decode(model.pipe, known)
    shift, scale = told[0], told[1] - told[0]
    place = ((told[2] - shift) / scale)[0].round().long()
    return seen


def walked(model: Model, start: Tensor, first: int, last: int, guidance: float | None = None) -> Tensor:
    """A path by our own steps, under the prompt of `follow`."""
    scale = scale_of(model) if guidance is None else guidance
    ode, asked, empty = Ode.of(model.noise, STEPS), model.condition(["a boat"]), model.condition([""])
    for step in range(first, last):
        with torch.no_grad():
            start = ode.after(step, start, guided(model, start, int(ode.timesteps[step]), asked, empty, scale))
    return start


def scale_of(model: Model) -> float:
    """FLUX dev was trained at a guidance above 1, and is followed at that one; others make one pass at 1."""
    return small.GUIDANCE.get(model.family, 1.0)


def follow(model: Model, trajectory: Trajectory, guidance: float) -> Any:
    return model.sample([SampleRequest("a boat", 3, trajectory=trajectory)], steps=9, guidance=guidance, batch=1)


@pytest.mark.parametrize("first", [0, 2])
def test_the_pipeline_follows_the_path_from_any_step(model: Model, decoded: list[Tensor], first: int) -> None:
    scheduler, start = model.pipe.scheduler, noise_of(model, [3])
    part = walked(model, start, 0, first)
    follow(model, Trajectory(part[0], STEPS, first), scale_of(model))
    torch.testing.assert_close(decoded[0], walked(model, start, 0, STEPS), rtol=1e-4, atol=1e-4)
    assert model.pipe.scheduler is scheduler


def test_guidance_acts_on_the_path(model: Model, decoded: list[Tensor]) -> None:
    start = noise_of(model, [3])
    follow(model, Trajectory(start[0], STEPS), 5.0)
    torch.testing.assert_close(decoded[0], walked(model, start, 0, STEPS, 5.0), rtol=1e-4, atol=1e-4)


def test_outside_the_mask_the_latents_are_the_pictures(model: Model, decoded: list[Tensor]) -> None:
    noise, known = noise_of(model, [3]), noise_of(model, [4])
    mask = torch.zeros(1, *noise.shape[-2:])
    mask[:, 2:6, 2:6] = 1
    follow(model, Trajectory(noise[0], STEPS, known=known[0], mask=mask), scale_of(model))
    drawn = mask.bool().expand_as(known[0])
    assert torch.equal(decoded[0][0][~drawn].round(decimals=4), known[0][~drawn].round(decimals=4))
    assert not torch.isclose(decoded[0][0][drawn], known[0][drawn], atol=1e-3).all()


def test_guards_see_the_steps_of_the_whole_path(model: Model, decoded: list[Tensor]) -> None:
    seen: list[tuple[int, int]] = []

    def clean(step: Step, estimate: Tensor) -> Tensor:
        seen.append((step.number, step.steps))
        return estimate * 0

    model.hooks.append(Hooks(clean=clean))
    try:
        follow(model, Trajectory(noise_of(model, [3])[0], STEPS, 2), scale_of(model))
    finally:
        model.hooks.clear()
    assert seen == [(2, STEPS), (3, STEPS)]
    # A flow ends at x̂0, here 0; diffusions end a little before it, at ᾱ₀.
    assert float(decoded[0].abs().mean()) < 0.05


def test_images_of_different_ways_share_a_call(model: Model) -> None:
    noise = noise_of(model, [3, 4])
    plain, along = SampleRequest("a boat", 3), SampleRequest("", 4, trajectory=Trajectory(noise[0], STEPS))
    later = SampleRequest("", 4, trajectory=Trajectory(noise[1], STEPS, 1))
    mixed = model.sample([later, plain, along], steps=2, guidance=1.0, batch=4)
    alone = [model.sample([one], steps=2, guidance=1.0, batch=4)[0] for one in (later, plain, along)]
    assert [image.tobytes() for image in mixed] == [image.tobytes() for image in alone]


def test_the_noise_is_the_pipelines_own(model: Model) -> None:
    seen: list[Tensor] = []

    def prediction(step: Step, guided: Tensor) -> Tensor:
        seen.append(step.latents)
        return guided

    model.hooks.append(Hooks(prediction=prediction))
    try:
        model.sample([SampleRequest("a boat", 3)], steps=2, guidance=1.0, batch=1)
    finally:
        model.hooks.clear()
    noise = noise_of(model, [3])
    laid_out = model.kind.latents.pack(noise)
    torch.testing.assert_close(seen[0], laid_out * float(getattr(model.pipe.scheduler, "init_noise_sigma", 1.0)))


def test_a_step_of_a_rectified_flow_by_hand() -> None:
    """σ 1 → 0.5 → 0 in two steps of an unshifted schedule: x' = x − v/2."""
    ode = Ode.of(Flow(flow_sigmas(1000)), 2)
    assert ode.timesteps.tolist() == [999, 499]
    x, v = torch.tensor([1.0, -2.0]), torch.tensor([0.4, 2.0])
    torch.testing.assert_close(ode.after(0, x, v), torch.tensor([0.8, -3.0]))
    torch.testing.assert_close(ode.before(0, torch.tensor([0.8, -3.0]), v), x)
    torch.testing.assert_close(ode.noised(0, x, v), torch.tensor([0.7, 0.0]))
    torch.testing.assert_close(ode.noised(1, x, v), x)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_step_of_a_diffusion_is_ddims(prediction: Any) -> None:
    noise = Diffusion(torch.linspace(0.999, 0.005, 1000), prediction)
    ode, schedule = Ode.of(noise, 10), Ddim.of(noise, 10)
    x, f = torch.randn((2, 3), generator=torch.Generator().manual_seed(0))
    for step in (0, 5, 9):
        torch.testing.assert_close(ode.after(step, x, f), schedule.mean(step, x, f))


@pytest.mark.parametrize(
    "noise",
    [
        Diffusion(torch.linspace(0.999, 0.005, 1000), "epsilon"),
        Diffusion(torch.linspace(0.999, 0.005, 1000), "v_prediction"),
        Flow(flow_sigmas(1000, shift=3.0)),
    ],
)
def test_the_inverse_is_exact_where_the_prediction_is_constant(noise: Diffusion | Flow) -> None:
    """A network that predicts 0.3 everywhere: the whole path there and back ends where it began."""
    ode, start, f = Ode.of(noise, 10), torch.tensor([0.5, -1.5]), torch.full((2,), 0.3)
    path = [start]
    for step in range(10):
        path.append(ode.after(step, path[-1], f))
    back = path[-1]
    for step in reversed(range(10)):
        back = ode.before(step, back, f)
        torch.testing.assert_close(back, path[step], rtol=1e-4, atol=1e-4)
