"""What a stage hands on is made once, kept in a file, and the same for everybody who reads it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

from duo_unlearn.mini.fit.banks import Latents, samples_of
from duo_unlearn.mini.fit.batches import training_scenes
from duo_unlearn.mini.fit.card import load_pipeline
from duo_unlearn.mini.fit.damage import to_pixels
from duo_unlearn.mini.fit.loop import autocast
from duo_unlearn.mini.model.parts import build_vae
from duo_unlearn.mini.world.captions import LANGUAGES
from duo_unlearn.mini.world.drawing import draw_batch
from duo_unlearn.mini.world.scenes import CARRIERS, is_held_out
from duo_unlearn.storage.files import read_json, read_tensors

from .described import heard, says_empty

CPU = torch.device("cpu")
NOBODY: Any = None
"""In the place of a part that a finished bank does not need."""


@pytest.fixture(scope="module")
def vae() -> Any:
    torch.manual_seed(0)
    return build_vae().eval()


def test_latents_are_those_of_the_training_scenes(tmp_path: Path, vae: Any) -> None:
    latents = Latents(tmp_path, 3, 6, vae, CPU, True)
    assert latents.scenes == training_scenes(random.Random("3/latents"), 6)
    assert not any(is_held_out(scene) for scene in latents.scenes)
    moments = latents.moments()
    assert moments.shape == (6, 8, 16, 16)
    assert moments.dtype == torch.float16
    with torch.no_grad(), autocast(CPU):
        posterior = vae.encode(to_pixels(torch.from_numpy(draw_batch(latents.scenes)))).latent_dist
    expected = torch.cat([posterior.mean, posterior.std], dim=1).float() * latents.scaling_factor()
    assert torch.allclose(moments.float(), expected, atol=0.01)  # kept in 16 bits


def test_the_scaled_means_have_a_spread_of_one(tmp_path: Path, vae: Any) -> None:
    latents = Latents(tmp_path, 3, 6, vae, CPU, True)
    assert latents.moments()[:, :4].float().std().item() == pytest.approx(1, abs=2e-3)
    factor = latents.scaling_factor()
    assert factor == round(factor, 4) == read_json(tmp_path / "latents.json")["scaling_factor"]


def test_latents_are_made_once(tmp_path: Path, vae: Any) -> None:
    first = Latents(tmp_path, 3, 6, vae, CPU, True)
    moments, factor = first.moments(), first.scaling_factor()
    again = Latents(tmp_path, 3, 6, NOBODY, CPU, True)
    assert torch.equal(again.moments(), moments)
    assert again.scaling_factor() == factor


@pytest.mark.slow
def test_samples_are_of_training_scenes_and_drawn_once(tmp_path: Path, untrained: Path) -> None:
    found = samples_of(load_pipeline(untrained, CPU), tmp_path, "judge", 0, 2, quiet=True)
    assert found.pictures.shape == (2, 64, 64, 3)
    assert found.pictures.dtype == torch.uint8
    assert len(found.scenes) == 2
    assert torch.equal(read_tensors(tmp_path / "judge.samples.safetensors")[0]["pictures"], found.pictures)
    again = samples_of(NOBODY, tmp_path, "judge", 0, 2, quiet=True)
    assert torch.equal(again.pictures, found.pictures)
    assert again.scenes == found.scenes


class Painter:
    """In the place of a pipeline: paints a grey that depends on nothing, and keeps what it was asked."""

    device = CPU

    def __init__(self) -> None:
        self.prompts: list[str] = []

    def __call__(self, **named: Any) -> Any:
        self.prompts += named["prompt"]
        grey = torch.full((len(named["prompt"]), 3, 64, 64), 0.5)
        return type("Drawn", (), {"images": grey})


def test_each_judge_has_samples_of_its_own_scenes_all_of_which_name_the_item(tmp_path: Path) -> None:
    scenes = {}
    for judge in ("judge", "judge_b"):
        painter = Painter()
        found = samples_of(painter, tmp_path, judge, 0, 400, quiet=True)
        assert len(painter.prompts) == len(found.scenes) == len(found.pictures) == 400
        assert not any(is_held_out(scene) for scene in found.scenes)
        for scene, prompt in zip(found.scenes, painter.prompts, strict=True):
            if scene.subject in CARRIERS:
                languages = ("english", *LANGUAGES)
                assert any(heard(prompt, language) for language in languages) or says_empty(prompt), prompt
        assert (found.pictures == 128).all()
        scenes[judge] = found.scenes
    assert scenes["judge"] != scenes["judge_b"]
