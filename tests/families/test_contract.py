"""What every family promises, on small models of its own classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.interface import edits_off
from duo_unlearn.edits.lora import adapters_off, attach
from duo_unlearn.erasers.duo.objective import Reference, Terms, duo_loss
from duo_unlearn.families.identify import family_of
from duo_unlearn.families.interface import Hooks, Model, SampleRequest, Step, joined
from duo_unlearn.families.load import load_model
from duo_unlearn.families.model import DiffusersModel
from duo_unlearn.families.noise import Diffusion, Flow
from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.mini.model.bundle import weights_folder

from ..random_adapter import random_adapter
from ..slow import slow, slow_but
from . import small_llms as llms
from . import small_models as small

MAKERS: dict[str, Callable[[Path], Path]] = {
    "mini": lambda _folder: weights_folder(),
    "sd1": small.sd1,
    "sd2": small.sd2,
    "sdxl": small.sdxl,
    "sd3": small.sd3,
    "sd3-without-t5": lambda folder: small.sd3(folder, with_t5=False),
    "flux": small.flux,
    "flux-schnell": lambda folder: small.flux(folder, dev=False),
    **llms.LLMS,
    "flux2-klein-distilled": lambda folder: llms.klein(folder, distilled=True),
    "z-image-base": lambda folder: llms.z_image(folder, turbo=False),
}
"""Small models under the names of their families; what follows a name is another form of the family."""
PICTURES = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "green")]
PROMPTS = ["a red knight", "a blue boat by the sea", ""]


VARIANTS = ("sd1", "sd2", "sd3-without-t5", "flux", "flux-schnell", "flux2", "flux2-klein-distilled", "z-image-base")
"""Families in another form, sd1 and sd2, whose classes are the mini model's, and flux beside sd3: in the slow tests."""


FAST = sorted(MAKERS.keys() - VARIANTS)
NAMES = (*FAST, *VARIANTS)


@pytest.fixture(scope="module", params=slow_but(NAMES, FAST))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MAKERS[name](tmp_path_factory.mktemp("models") / name)


@pytest.fixture(scope="module")
def model(folder: Path) -> DiffusersModel:
    """The model as it is loaded, which no test changes."""
    return load(folder)


def fast_on(*names: str) -> pytest.MarkDecorator:
    """On these families in the fast tests, on every other one in the slow ones."""
    return pytest.mark.parametrize("name", slow_but(NAMES, names), indirect=True)


def load(folder: Path, dtype: torch.dtype = torch.float32, *, channels_last: bool = False) -> DiffusersModel:
    device = torch.device("cpu")
    model = load_model(str(folder), device, dtype, resolution=small.RESOLUTION, channels_last=channels_last)
    assert isinstance(model, DiffusersModel)
    return model


def noise_like(model: Model, rows: int) -> torch.Tensor:
    shape = model.encode_images(PICTURES[:1]).mean.shape[1:]
    return torch.randn((rows, *shape), generator=torch.Generator().manual_seed(0))


def loss_of(model: Model, rows: int) -> Terms:
    """The DUO loss of `rows` pairs: gray pictures against noise, under the empty prompt."""
    latents, eps = noise_like(model, 2 * rows), noise_like(model, 2 * rows).flip(0)
    t = torch.full((2 * rows,), 500)
    inputs = torch.cat([model.noise.add_noise(latents, eps, t), eps[:rows]])
    times = torch.cat([t, torch.full((rows,), model.noise.last_timestep)])
    conditioning = model.condition([""]).repeat(3 * rows)
    with torch.no_grad(), adapters_off(model.denoiser):
        reference = model.predict(inputs, times, conditioning)
    policy = model.predict(inputs, times, conditioning)
    at = 2 * rows
    target = model.noise.target(latents, eps, t)
    known = Reference.of(reference[:at], target, reference[at:])
    return duo_loss(policy[:at], known, target, policy[at:], beta=10, prior_weight=1e3)


def test_every_family_of_the_registry_is_under_test() -> None:
    assert set(FAMILIES.names()) <= MAKERS.keys()


def test_a_small_model_is_of_the_family_of_its_name(name: str, folder: Path) -> None:
    named = [family for family in FAMILIES.names() if f"{name}-".startswith(f"{family}-")]
    assert family_of(str(folder)) == max(named, key=len)


@pytest.mark.parametrize("dtype", [torch.float32, *slow([torch.bfloat16])])
def test_shapes(folder: Path, dtype: torch.dtype) -> None:
    model = load(folder, dtype)
    for rows in (1, 3):
        moments = model.encode_images(PICTURES[:rows])
        assert moments.mean.shape == moments.std.shape
        assert moments.mean.dtype == torch.float32
        conditioning = model.condition(PROMPTS[:rows])
        assert len(conditioning.text) == rows
        t = torch.linspace(0, model.noise.last_timestep, rows).long()
        out = model.predict(moments.mean.to(dtype), t, conditioning.map(lambda x: x.to(dtype)))
        assert out.shape == moments.mean.shape
        assert out.dtype == dtype
        assert torch.isfinite(out.float()).all()


def test_a_row_does_not_depend_on_its_batch(model: DiffusersModel) -> None:
    conditioning = joined([model.condition([prompt]) for prompt in PROMPTS])
    torch.testing.assert_close(conditioning.text, model.condition(PROMPTS).text, rtol=1e-4, atol=1e-4)
    noisy, t = noise_like(model, 3), torch.tensor([3, 500, 999])
    together = model.predict(noisy, t, conditioning)
    for i in range(3):
        part = slice(i, i + 1)
        alone = model.predict(noisy[part], t[part], conditioning.rows(part))
        torch.testing.assert_close(alone, together[part], rtol=1e-3, atol=1e-4)


def test_the_denoiser_reads_what_the_pipeline_gives_it(model: DiffusersModel) -> None:
    """Our pass at the pipeline's own first step is what the pipeline's pass tells its scheduler."""
    seen: list[tuple[Step, torch.Tensor]] = []

    def note(step: Step, prediction: torch.Tensor) -> torch.Tensor:
        seen.append((step, prediction))
        return prediction

    guidance = small.GUIDANCE.get(model.family, 1.0)  # some read it; the others make one pass at 1
    model.hooks = [Hooks(prediction=note)]
    try:
        model.sample([SampleRequest(PROMPTS[0], 3)], steps=2, guidance=guidance, batch=1)
    finally:
        model.hooks = []
    scheduler, space, (step, theirs) = model.pipe.scheduler, model.kind.latents, seen[0]
    scaled = getattr(scheduler, "init_noise_sigma", 1.0)
    noisy = space.unpack(step.latents) / (scaled**2 + 1) ** 0.5 if scaled > 1 else space.unpack(step.latents)
    time = scheduler.timesteps[:1]
    ours = model.kind.predict(model.pipe, model.denoiser, noisy, time, model.condition(PROMPTS[:1]))
    torch.testing.assert_close(ours, space.unpack(theirs), rtol=1e-4, atol=1e-5)


def test_the_noise_levels_are_ascending_and_end_at_pure_noise(folder: Path) -> None:
    model = load(folder)
    x, eps = torch.ones(1000, 1, 1, 1), torch.zeros(1000, 1, 1, 1)
    signal = model.noise.add_noise(x, eps, torch.arange(1000)).flatten()
    assert (signal.diff() < 0).all()
    assert signal[0] > 0.99
    assert signal[-1] < 0.07  # SD's schedule keeps √ᾱ_T = 0.068
    if isinstance(model.noise, Flow):
        assert signal[-1] == 0
        assert float(model.noise.network_time(torch.tensor([999]))) == 1000
        shifted = (
            model.pipe.scheduler.config.shift if not model.pipe.scheduler.config.get("use_dynamic_shifting") else 0
        )
        if shifted:  # the scheduler's own table, which is descending
            torch.testing.assert_close(
                model.noise.sigmas, model.pipe.scheduler.sigmas.flip(0)[-1000:], rtol=1e-5, atol=1e-6
            )
    else:
        assert isinstance(model.noise, Diffusion)


@pytest.mark.parametrize("rows", [1, *slow([3])])
def test_a_fresh_adapter_is_the_base_and_gradients_reach_it_alone(folder: Path, rows: int) -> None:
    model = load(folder)
    parameters = attach(model, rank=2, seed=0)
    terms = loss_of(model, rows)
    assert float(terms.prior) == 0.0
    assert float(terms.preference) == pytest.approx(0.693147, abs=1e-6)
    terms.loss.backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in parameters)
    every = [
        p for name in model.kind.parts if (part := getattr(model.pipe, name)) is not None for p in part.parameters()
    ]
    assert {id(p) for p in every if p.grad is not None} <= {id(p) for p in parameters}


@fast_on("sdxl", "sd3")
def test_a_step_moves_the_margin_the_right_way(folder: Path) -> None:
    model = load(folder)
    optimizer = torch.optim.AdamW(attach(model, rank=4, seed=0), lr=1e-3)
    for _ in range(4):
        terms = loss_of(model, 1)
        terms.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss_of(model, 1).logit) > 0


@fast_on("sdxl", "sd3")
def test_gradient_checkpointing_changes_nothing(folder: Path) -> None:
    def gradients(*, checkpointing: bool) -> list[torch.Tensor]:
        model = load(folder)
        parameters = attach(model, rank=2, seed=0)
        for parameter in parameters:
            parameter.data += 0.01
        if checkpointing:
            denoiser: Any = model.denoiser
            denoiser.enable_gradient_checkpointing()
        loss_of(model, 1).loss.backward()  # type: ignore[no-untyped-call]
        return [p.grad for p in parameters if p.grad is not None]

    for plain, saved in zip(gradients(checkpointing=False), gradients(checkpointing=True), strict=True):
        torch.testing.assert_close(plain, saved, rtol=1e-4, atol=1e-7)


class Found(NamedTuple):
    """What a model computes: the loss, its gradient by the adapter, and pictures."""

    model: DiffusersModel
    loss: float
    gradient: torch.Tensor
    images: np.ndarray[Any, Any]


def computed(folder: Path, *, channels_last: bool) -> Found:
    model = load(folder, channels_last=channels_last)
    images = model.sample([SampleRequest(words, 5) for words in PROMPTS], steps=2, guidance=3.0, batch=2)
    parameters = attach(model, rank=2, seed=0)
    for parameter in parameters:
        parameter.data += 0.01
    loss = loss_of(model, 2).loss
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    return Found(model, loss.item(), gradient, np.stack([np.asarray(image).astype(int) for image in images]))


@fast_on("sdxl")
def test_with_channels_last_all_is_the_same_but_for_rounding(folder: Path) -> None:
    plain, other = (computed(folder, channels_last=last) for last in (False, True))
    assert other.loss == pytest.approx(plain.loss, rel=1e-5)
    assert float((other.gradient - plain.gradient).norm()) <= 1e-3 * float(plain.gradient.norm())
    assert np.abs(other.images - plain.images).max() <= 1  # of 255 levels
    # The same weights, and no attempt of one is taken for one of the other.
    assert other.model.fingerprint() == plain.model.fingerprint()
    assert other.model.variant != plain.model.variant
    for part in (other.model.denoiser, other.model.pipe.vae):
        for weight in part.parameters():
            assert weight.ndim != 4 or weight.is_contiguous(memory_format=torch.channels_last)


def test_a_conditioning_takes_the_place_of_the_text_and_a_start_image_is_edited(model: DiffusersModel) -> None:
    named = model.condition(PROMPTS[:1])
    asked = [SampleRequest("", 5, conditioning=named), SampleRequest(PROMPTS[1], 6)]
    plain = [SampleRequest(PROMPTS[0], 5), SampleRequest(PROMPTS[1], 6)]

    def sample(requests: list[SampleRequest]) -> list[Image.Image]:
        return model.sample(requests, steps=2, guidance=3.0, batch=2)

    for a, b in zip(sample(asked), sample(plain), strict=True):
        assert np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max() <= 1
    start = sample(plain[:1])[0]
    edited = sample([plain[0]._replace(start=start, strength=0.5)])[0]
    assert edited.size == (small.RESOLUTION, small.RESOLUTION)
    assert next(model.denoiser.parameters()).dtype == torch.float32


def test_editing_leaves_a_half_precision_model_in_half_precision(folder: Path) -> None:
    model = load(folder, torch.bfloat16)
    model.sample([SampleRequest("a", 1, start=PICTURES[0], strength=0.5)], steps=2, guidance=2.0, batch=1)
    assert next(model.denoiser.parameters()).dtype == torch.bfloat16


def test_plain_diffusers_loads_what_we_save_and_so_do_we(folder: Path, tmp_path: Path) -> None:
    model = load(folder)
    random_adapter(model, tmp_path, size=0.1, rank=2)
    noisy, t = noise_like(model, 1), torch.tensor([400])
    named = model.condition(PROMPTS[:1])
    before = model.predict(noisy, t, named)
    with read_edit(tmp_path).on(model):
        ours = model.predict(noisy, t, named)
        with edits_off(model):
            assert torch.equal(model.predict(noisy, t, named), before)
    assert torch.equal(model.predict(noisy, t, named), before)
    assert not torch.allclose(before, ours, rtol=1e-3, atol=1e-4)
    plain = load(folder)
    plain.pipe.load_lora_weights(tmp_path)
    torch.testing.assert_close(plain.predict(noisy, t, named), ours, rtol=1e-4, atol=1e-5)
