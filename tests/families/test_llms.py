"""Families whose prompts a language model reads, held against their own pipelines."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from duo_unlearn.arena.guarded_reader import GuardedReader
from duo_unlearn.attacks.fine_tuning import attention_weights
from duo_unlearn.erasers.spm import adapted_layers
from duo_unlearn.errors import DuoError
from duo_unlearn.families.conditioning import Conditioning
from duo_unlearn.families.denoising import guided, predict_noised
from duo_unlearn.families.flux2 import STEPS, STEPS_DISTILLED
from duo_unlearn.families.interface import Hooks, Later, Model, SampleRequest
from duo_unlearn.families.llm import is_token, padded, rows_of, trimmed
from duo_unlearn.families.load import load_model
from duo_unlearn.families.noise import Flow
from duo_unlearn.families.ode import noise_of
from duo_unlearn.families.trajectory import from_pictures

from ..slow import slow_but
from . import small_llms as llms
from . import small_models as small
from .small_llms import LLMS

FAST = ("flux2-klein", "qwen-image", "z-image")
"""Dev differs from klein in its encoder and its guidance: in the slow tests."""
FLOWS: dict[str, Callable[[Path], Path]] = {
    **LLMS,
    "sd3": lambda folder: small.sd3(folder, with_t5=False),
    "flux": small.flux,
}
PROMPTS = ["a red knight with a sword", "a blue boat"]


def loaded(maker: Callable[[Path], Path], folder: Path) -> Model:
    return load_model(str(maker(folder / "model")), torch.device("cpu"), resolution=small.RESOLUTION)


@pytest.fixture(scope="module", params=slow_but(sorted(LLMS), FAST))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return loaded(LLMS[request.param], tmp_path_factory.mktemp(request.param))


def theirs(model: Model, negatives: Sequence[str], guidance: float, **named: Any) -> list[Image.Image]:
    """What the pipeline itself makes of the prompts and of seeds 3 and 4."""
    own: dict[str, dict[str, Any]] = {
        "flux2": {"guidance_scale": guidance},
        "flux2-klein": {"guidance_scale": guidance},
        "qwen-image": {"true_cfg_scale": guidance, "negative_prompt": list(negatives)},
        "z-image": {"guidance_scale": guidance - 1, "negative_prompt": list(negatives)},
    }
    seeds = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    size = {"height": small.RESOLUTION, "width": small.RESOLUTION, "num_inference_steps": 3}
    images: list[Image.Image] = model.pipe(
        prompt=list(PROMPTS), generator=seeds, **size, **own[model.family], **named
    ).images
    return images


def ours(model: Model, negatives: Sequence[str], guidance: float) -> list[Image.Image]:
    requests = [SampleRequest(PROMPTS[i], 3 + i, negatives[i]) for i in range(2)]
    return model.sample(requests, steps=3, guidance=guidance, batch=2)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_images_are_the_pipelines_own_bit_for_bit(model: Model, guidance: float) -> None:
    # klein's pipeline has no negative prompt but the empty one, and dev's has none at all.
    negatives = ["", ""] if model.family.startswith("flux2") else ["a boat", ""]
    for one, other in zip(ours(model, negatives, guidance), theirs(model, negatives, guidance), strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_conditioning_is_what_the_pipelines_denoiser_reads(model: Model) -> None:
    seen: list[Any] = []

    def note(_network: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        seen.append(named["encoder_hidden_states"] if "encoder_hidden_states" in named else given[2])

    hook = model.denoiser.register_forward_pre_hook(note, with_kwargs=True)
    try:
        theirs(model, ["", ""], 1.0)
    finally:
        hook.remove()
    text = model.condition(PROMPTS).text
    found = rows_of(text) if model.family == "z-image" else trimmed(text)[0] if model.kind.padded else text
    for one, other in zip(found, seen[0], strict=True):
        assert torch.equal(one, other)


def test_erasers_and_attacks_find_the_layers_that_they_name(model: Model) -> None:
    """SPM and relearning find layers at all; what ESD-u trains is in test_layers.py."""
    assert set(model.adapted_layers("all-attention")) <= set(adapted_layers(model))
    assert attention_weights(model)


def test_qwen_images_template_is_dropped_to_the_last_token(tmp_path: Path) -> None:
    """The empty prompt leaves the template's end alone: <|im_end|>, a line's end, <|im_start|>, assistant, a line's."""
    model = loaded(llms.qwen_image, tmp_path)
    assert is_token(model.condition(["", "boat"]).text).sum(dim=1).tolist()[0] == 5
    tokens = model.pipe.tokenizer(model.pipe.prompt_template_encode.partition("{}")[0]).input_ids
    assert len(tokens) == model.pipe.prompt_template_encode_start_idx


def test_klein_is_told_not_to_think_and_z_image_is_not(tmp_path: Path) -> None:
    seen: list[str] = []
    for maker in (llms.klein, llms.z_image):
        model = loaded(maker, tmp_path / maker.__name__)
        encoder: Any = model.pipe.text_encoder
        hook = encoder.register_forward_pre_hook(
            lambda _m, _g, named, pipe=model.pipe: seen.append(pipe.tokenizer.decode(named["input_ids"][0])),
            with_kwargs=True,
        )
        model.condition(["a boat"])
        hook.remove()
    assert [text.partition("<|endoftext|>")[0] for text in seen] == [
        "<|im_start|>user\na boat<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "<|im_start|>user\na boat<|im_end|>\n<|im_start|>assistant\n",
    ]


def perfect(model: Model, clean: Tensor) -> Callable[..., Any]:
    """The forward pass of a network that knows the clean latents, from what its pipeline hands it."""
    space, unit = model.kind.latents, 1000 if model.family == "sd3" else 1

    def forward(*given: Any, **named: Any) -> tuple[Any]:
        if "hidden_states" in named:
            sigma = (named["timestep"] / unit).view(-1, 1, 1, 1)
            return (space.pack((space.unpack(named["hidden_states"]) - clean) / sigma),)
        pictures, share, _text = given  # Z-Image: the time left, and the velocity towards the picture
        return ([(clean[0].unsqueeze(1) - one) / (1 - left) for one, left in zip(pictures, share, strict=True)],)

    return forward


@pytest.mark.parametrize("family", slow_but(sorted(FLOWS), FAST))
def test_a_perfect_predictor_has_no_loss_and_samples_what_it_knows(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One network, as the pipeline reads it and as training does: so time, sign, scale and layout are the same."""
    model = loaded(FLOWS[family], tmp_path)
    picture = Image.effect_noise((small.RESOLUTION, small.RESOLUTION), 40).convert("RGB")
    clean = model.encode_images([picture]).mean
    monkeypatch.setattr(model.denoiser, "forward", perfect(model, clean))
    decoded: list[Tensor] = []
    vae, own = model.pipe.vae, model.pipe.vae.decode

    def decode(raw: Tensor, *rest: Any, **named: Any) -> Any:
        decoded.append(raw)
        return own(raw, *rest, **named)

    monkeypatch.setattr(vae, "decode", decode)
    guidance = small.GUIDANCE.get(family, 1.0)
    model.sample([SampleRequest("a boat", 3)], steps=4, guidance=guidance, batch=1)
    model.kind.latents.decode(model.pipe, clean)
    torch.testing.assert_close(decoded[0], decoded[1], rtol=1e-3, atol=1e-3)
    eps = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    for t in (torch.tensor([20]), torch.tensor([500]), torch.tensor([999])):
        found = model.predict(model.noise.add_noise(clean, eps, t), t, model.condition(["a boat"]))
        torch.testing.assert_close(found, model.noise.target(clean, eps, t), rtol=1e-2, atol=1e-3)


def test_the_vaes_scale_is_taken_out_and_put_back(model: Model) -> None:
    """What is encoded is decoded as the VAE alone would do it."""
    pixels = torch.rand((1, 3, small.RESOLUTION, small.RESOLUTION), generator=torch.Generator().manual_seed(0)) * 2 - 1
    space, vae = model.kind.latents, model.pipe.vae
    with torch.no_grad():
        mean, std = space.encode(model.pipe, pixels)
        there = pixels.unsqueeze(2) if model.family == "qwen-image" else pixels
        back = vae.decode(vae.encode(there).latent_dist.mean).sample
        again = space.decode(model.pipe, mean)
    assert mean.shape == std.shape == (1, *space.shape(model.pipe, small.RESOLUTION))
    assert torch.equal(space.unpack(space.pack(mean)), mean)
    torch.testing.assert_close(again, back.view_as(again), rtol=1e-4, atol=1e-5)


def test_guidance_of_a_guard_contrasts_the_pipelines_branches(model: Model) -> None:
    """The branches that a guard sees, mixed as the family mixes them, are the prediction that it is given."""
    if model.kind.guidance_is_input:
        pytest.skip("guidance is an input there")
    space, seen = model.kind.latents, []

    def prediction(step: Any, guided: Tensor) -> Tensor:
        assert step.branches is not None
        positive, negative = (space.unpack(x.float()) for x in (step.branches.positive, step.branches.negative))
        mixed = model.kind.guide(positive, negative, step.branches.scale)
        torch.testing.assert_close(mixed, space.unpack(guided.float()), rtol=1e-4, atol=1e-5)
        again = step.branches.predict(model.condition([""]).repeat(2))
        torch.testing.assert_close(space.unpack(again.float()), negative, rtol=1e-4, atol=1e-5)
        seen.append(step.number)
        return guided

    model.hooks.append(Hooks(prediction=prediction))
    try:
        ours(model, ["", ""], 3.0)
    finally:
        model.hooks.clear()
    assert seen == [0, 1, 2]


def test_padding_gets_no_gradient_and_changes_nothing(model: Model) -> None:
    if not model.kind.padded:
        pytest.skip("it reads its padding")
    text = model.condition(PROMPTS[:1]).text.requires_grad_(True)
    noisy = torch.randn((1, *model.kind.latents.shape(model.pipe, small.RESOLUTION)))
    out = model.predict(noisy, torch.tensor([500]), Conditioning(text))
    (slope,) = torch.autograd.grad(out.square().sum(), text)
    here = is_token(text)[0]
    assert slope[0][here].abs().sum() > 0
    assert slope[0][~here].abs().max() == 0


def test_a_text_that_has_padding_cannot_change_on_the_way(model: Model) -> None:
    if not model.kind.padded:
        pytest.skip("it reads its padding")
    later = Later(model.condition(["a boat"]).text, torch.tensor([0.5]))
    model.hooks = [Hooks(conditioning=lambda _requests, guidance: guidance._replace(later=later))]
    try:
        with pytest.raises(DuoError, match="the text cannot change on the way"):
            model.sample([SampleRequest("a boat", 1)], steps=2, guidance=1.0, batch=1)
    finally:
        model.hooks = []


def test_rows_and_padding_by_hand() -> None:
    rows = [torch.ones(2, 3), torch.ones(1, 3)]
    text = padded(rows, 5)
    assert text.shape == (2, 5, 3)
    assert is_token(text).tolist() == [[True, True, False, False, False], [True, False, False, False, False]]
    assert [len(one) for one in rows_of(text)] == [2, 1]
    assert trimmed(text)[0].shape == (2, 2, 3)


@pytest.mark.slow
def test_kleins_schedule_is_that_of_its_steps(tmp_path: Path) -> None:
    for distilled, steps in ((False, STEPS), (True, STEPS_DISTILLED)):
        model = loaded(functools.partial(llms.klein, distilled=distilled), tmp_path / str(distilled))
        model.sample([SampleRequest("a boat", 1)], steps=steps, guidance=1.0, batch=1)
        assert isinstance(model.noise, Flow)
        own = model.pipe.scheduler.sigmas[:steps]
        at = 999 - torch.arange(steps) * (1000 // steps)
        torch.testing.assert_close(model.noise.sigmas[at], own, rtol=1e-4, atol=1e-4)


def test_a_distilled_klein_is_guided_nowhere_as_its_pipeline_is_not(tmp_path: Path) -> None:
    """Its scale is ignored there; a path, or a search, that contrasts the empty prompt would be of another model."""
    model = loaded(functools.partial(llms.klein, distilled=True), tmp_path)
    asked, empty = model.condition(["a red knight"]), model.condition([""])
    noise, t = noise_of(model, [3]), torch.tensor([model.noise.last_timestep])
    with torch.no_grad():
        seen, alone = guided(model, noise, t, asked, empty, 4.0), predict_noised(model, noise, t, asked)
    assert torch.equal(seen, alone)
    model.hooks = [Hooks(prediction=lambda _step, prediction: prediction)]
    assert not GuardedReader(model, 4.0).guided


def test_a_picture_is_gone_on_from_at_its_noise_level_where_diffusers_has_no_pipeline(tmp_path: Path) -> None:
    model = loaded(llms.klein, tmp_path)
    picture = Image.new("RGB", (small.RESOLUTION, small.RESOLUTION), "red")
    asked = SampleRequest("a boat", 3, start=picture, strength=0.5)
    (found,) = from_pictures(model, [asked], 4)
    assert found.start is None
    assert found.trajectory is not None
    assert (found.trajectory.steps, found.trajectory.first) == (4, 2)
    clean, noise = model.encode_images([picture]).mean, torch.Generator().manual_seed(3)
    eps = torch.randn(clean.shape, generator=noise)
    expected = model.noise.add_noise(clean, eps, torch.tensor([499]))
    torch.testing.assert_close(found.trajectory.latents, expected[0])
    (by_hand,) = model.sample([found], steps=4, guidance=1.0, batch=1)
    assert model.sample([asked], steps=4, guidance=1.0, batch=1)[0].tobytes() == by_hand.tobytes()
    (whole,) = from_pictures(model, [asked._replace(strength=1.0)], 4)
    assert whole.trajectory is not None
    torch.testing.assert_close(whole.trajectory.latents, eps[0])
