"""`duo mini fit`: a finished stage is not run again, and a folder belongs to one recipe."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from duo_unlearn.errors import DuoError
from duo_unlearn.mini.fit.fit import DAMAGES, Recipe, fit, text_tower
from duo_unlearn.mini.fit.times import stage_times
from duo_unlearn.mini.model.judge_net import JUDGES
from duo_unlearn.mini.model.parts import build_clip, token_ids
from duo_unlearn.storage.files import read_json, write_json

TINY = Recipe().shortened(0.0005)


def test_a_shortened_recipe_has_fewer_steps_and_the_same_rest() -> None:
    recipe = Recipe()
    assert TINY.clip.steps == 2  # never fewer
    assert TINY.unet.steps == round(recipe.unet.steps * 0.0005)
    assert TINY.unet.warmup <= TINY.unet.steps // 2
    assert TINY.judge_b.steps == 2
    assert (TINY.scenes, TINY.samples, TINY.batch) == (64, 64, recipe.batch)
    assert (TINY.seed, TINY.unet.lr, TINY.unet.ema) == (recipe.seed, recipe.unet.lr, recipe.unet.ema)
    assert recipe.shortened(1.0) == recipe


def test_each_judge_has_a_schedule_and_a_damage_of_its_own() -> None:
    assert set(JUDGES) == set(DAMAGES) < {field.name for field in dataclasses.fields(Recipe)}
    assert len(set(DAMAGES.values())) == len({getattr(Recipe(), name) for name in JUDGES}) == 2


@pytest.mark.parametrize(
    "other", [dataclasses.replace(TINY, seed=1), dataclasses.replace(TINY, vae=TINY.vae._replace(lr=1.0))]
)
def test_a_folder_of_another_recipe_is_refused(tmp_path: Path, other: Recipe) -> None:
    write_json(tmp_path / "recipe.json", dataclasses.asdict(other) | {"tokenizer": {}})
    before = (tmp_path / "recipe.json").read_bytes()
    with pytest.raises(DuoError, match="another recipe") as caught:
        fit(tmp_path, TINY, quiet=True)
    assert caught.value.hint is not None
    assert (tmp_path / "recipe.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


@torch.no_grad()
def test_the_text_encoder_is_clips_own_tower(tokenizer: Any) -> None:
    torch.manual_seed(0)
    clip = build_clip(tokenizer).eval()
    encoder: Any = text_tower(clip)
    ids = token_ids(tokenizer, ["an orange king with a blade"])
    expected = clip.text_model(input_ids=ids).last_hidden_state
    assert torch.equal(encoder(ids).last_hidden_state, expected)
    assert not any(p.requires_grad for p in encoder.parameters())


def weights(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}


@pytest.mark.slow
def test_every_stage_is_trained_once_and_the_model_loads(tmp_path: Path) -> None:
    from diffusers import DiffusionPipeline

    folder = tmp_path / "mini"
    model = fit(folder, TINY, device=torch.device("cpu"), quiet=True)
    assert not list(folder.glob("*.checkpoint.safetensors"))
    assert read_json(folder / "recipe.json")["seed"] == 0
    first = weights(model)
    assert set(first) == {
        "clip/model.safetensors",
        "judge/model.safetensors",
        "judge_b/model.safetensors",
        "text_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert sum(path.stat().st_size for path in model.rglob("*")) < 32e6

    assert set(stage_times(folder)) == {"clip", "vae", "unet", *JUDGES}

    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")}
    assert fit(folder, TINY, device=torch.device("cpu"), quiet=True) == model
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*.safetensors")} == stamps
    assert weights(model) == first

    pipe = DiffusionPipeline.from_pretrained(model, dtype=torch.float32, use_safetensors=True, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.vae.config.scaling_factor != 0.18215  # measured on the scenes' latents
    assert pipe("a red knight", num_inference_steps=2).images[0].size == (64, 64)
