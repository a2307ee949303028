"""The adapter: where it sits, that zero is the base exactly, and that plain diffusers loads what we save."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from duo_unlearn.edits.lora import adapter_tensors, adapters_off, attach, load_adapter, set_strength
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Model, SampleRequest
from duo_unlearn.families.load import load_model
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.storage.files import read_tensors, write_json

from ..random_adapter import random_adapter

REQUESTS = [SampleRequest("a red knight holding a sword in the snow", 7)]


def pixels(model: Model) -> np.ndarray:
    return np.asarray(model.sample(REQUESTS, steps=4, guidance=5.0, batch=1)[0]).astype(int)


def mini() -> Model:
    return load_model("mini", torch.device("cpu"))


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Model, Path]:
    """A model with a random adapter whose alpha differs from its rank's default, and its saved folder."""
    model = mini()
    random_adapter(model, tmp_path, size=0.2, concept="sword")
    return model, tmp_path


def test_only_self_attention_is_adapted_and_only_the_adapter_trains() -> None:
    model = mini()
    parameters = attach(model, rank=4, seed=0)
    names = set(adapter_tensors(model.denoiser))
    blocks = sum(name.endswith("attn1") for name, _ in model.denoiser.named_modules())
    assert len(names) == 2 * 4 * blocks
    assert all(".attn1." in name for name in names)
    assert {id(p) for p in model.denoiser.parameters() if p.requires_grad} == {id(p) for p in parameters}
    assert not any("lora_" in name for name, _ in model.pipe.text_encoder.named_parameters())


def test_a_fresh_adapter_is_the_identity() -> None:
    model = mini()
    before = pixels(model)
    attach(model, rank=4, seed=0)
    assert np.array_equal(pixels(model), before)


def test_off_is_the_base_and_requires_grad_comes_back(trained: tuple[Model, Path]) -> None:
    model, _ = trained
    base, flags = pixels(mini()), [p.requires_grad for p in model.denoiser.parameters()]
    assert not np.array_equal(pixels(model), base)
    with adapters_off(model.denoiser):
        assert np.array_equal(pixels(model), base)
        with adapters_off(model.denoiser):
            pass
        assert np.array_equal(pixels(model), base)  # an inner block leaves the outer one off
    assert not np.array_equal(pixels(model), base)
    assert [p.requires_grad for p in model.denoiser.parameters()] == flags


def test_strength_zero_is_the_base_and_one_is_as_trained(trained: tuple[Model, Path]) -> None:
    model, folder = trained
    loaded = mini()
    load_adapter(loaded, folder)
    assert np.array_equal(pixels(loaded), pixels(model))
    set_strength(loaded, 0.0)
    assert np.array_equal(pixels(loaded), pixels(mini()))


def test_plain_diffusers_loads_it_with_alpha_without_our_package(trained: tuple[Model, Path], tmp_path: Path) -> None:
    model, folder = trained
    script = f"""
import sys
sys.modules["duo_unlearn"] = None  # importing it would raise
import numpy as np, torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained({str(weights_folder())!r}, dtype=torch.float32, safety_checker=None)
pipe.load_lora_weights({str(folder)!r})
config = next(iter(pipe.unet.peft_config.values()))
assert (config.r, config.lora_alpha) == (4, 4), config
pipe.set_progress_bar_config(disable=True)
image = pipe({REQUESTS[0].prompt!r}, generator=torch.Generator().manual_seed(7), num_inference_steps=4,
             guidance_scale=5.0, height=64, width=64).images[0]
np.save({str(tmp_path / "plain.npy")!r}, np.asarray(image).astype(int))
"""
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert np.abs(np.load(tmp_path / "plain.npy") - pixels(model)).max() <= 1


def test_the_file_carries_its_provenance(trained: tuple[Model, Path]) -> None:
    model, folder = trained
    metadata = read_tensors(folder / "pytorch_lora_weights.safetensors")[1]
    assert model.fingerprint() in metadata["duo_provenance"]
    assert '"unet.lora_alpha": 4' in metadata["lora_adapter_metadata"]


def test_an_adapter_for_another_base_is_refused(trained: tuple[Model, Path]) -> None:
    _, folder = trained
    write_json(folder / "provenance.json", {"base": "0123456789abcdef"})
    with pytest.raises(DuoError, match="another base model"):
        load_adapter(mini(), folder)


def test_a_broken_or_missing_file_is_a_clear_error(trained: tuple[Model, Path], tmp_path: Path) -> None:
    _, folder = trained
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"not a tensor")
    with pytest.raises(DuoError, match="cannot read"):
        load_adapter(mini(), folder)
    with pytest.raises(DuoError, match="no adapter"):
        load_adapter(mini(), tmp_path / "nowhere")
