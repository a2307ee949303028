"""What is seen of a model folder before anything is loaded: its family and all of its faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import EDMEulerScheduler

from duo_unlearn.errors import DuoError
from duo_unlearn.families.identify import family_of, model_faults, variant_of
from duo_unlearn.families.load import load_model
from duo_unlearn.families.stable_diffusion import unet_noise
from duo_unlearn.mini.model.bundle import weights_folder

from . import small_models as small

WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole Stable Diffusion folder: the mini model."""
    return Path(shutil.copytree(weights_folder(), tmp_path / "model"))


def said(folder: Path) -> list[str]:
    return [f"{fault} {fault.got}" for fault in model_faults(str(folder))[0]]


def test_a_whole_folder_has_no_fault(folder: Path) -> None:
    assert model_faults(str(folder)) == ([], "mini")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("scheduler/scheduler_config.json", "no scheduler/scheduler_config.json"),
        ("tokenizer/tokenizer.json", "no tokenizer/tokenizer.json or vocab.json"),
        ("vae/config.json", "no vae/config.json"),
        ("unet/diffusion_pytorch_model.safetensors", "no weights in unet/"),
    ],
)
def test_a_missing_file_is_named(folder: Path, path: str, words: str) -> None:
    for name in {path, path.replace("tokenizer.json", "vocab.json")}:
        (folder / name).unlink(missing_ok=True)
    (one,) = said(folder)
    assert words in one


@pytest.mark.parametrize("keep", [0, 5, 100_000])
def test_cut_off_weights_are_damaged(folder: Path, keep: int) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    (one,) = said(folder)
    assert "is damaged" in one


def test_every_fault_is_told(folder: Path) -> None:
    (folder / "vae" / "config.json").unlink()
    (folder / "text_encoder" / "model.safetensors").write_bytes(b"")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "sample"}))
    found = said(folder)
    assert len(found) == 3
    assert any("prediction_type 'sample'" in one for one in found)
    with pytest.raises(DuoError):
        family_of(str(folder))


def test_a_variant_beside_the_plain_weights_changes_nothing(folder: Path) -> None:
    plain = load_model(str(folder), torch.device("cpu")).fingerprint()
    for name, text in WEIGHTS.items():
        shutil.copy(folder / name / f"{text}.safetensors", folder / name / f"{text}.fp16.safetensors")
    assert load_model(str(folder), torch.device("cpu")).fingerprint() == plain


def test_a_folder_with_the_fp16_variant_alone_is_loaded(folder: Path) -> None:
    assert variant_of(folder) is None
    for part, name in WEIGHTS.items():
        (folder / part / f"{name}.safetensors").rename(folder / part / f"{name}.fp16.safetensors")
    assert variant_of(folder) == "fp16"
    model, plain = load_model(str(folder), torch.device("cpu")), load_model("mini", torch.device("cpu"))
    assert model.fingerprint() == plain.fingerprint()
    assert torch.equal(model.encode_prompts(["a red knight"]).text, plain.encode_prompts(["a red knight"]).text)


def test_a_scheduler_without_a_target_is_told_for_sdxl_too(tmp_path: Path) -> None:
    folder = small.sdxl(tmp_path / "sdxl")
    config = folder / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "sample"}))
    (one,) = said(folder)
    assert "prediction_type 'sample'" in one


def test_a_scheduler_without_a_noise_schedule_of_its_own_is_refused() -> None:
    pipe = SimpleNamespace(scheduler=EDMEulerScheduler())
    with pytest.raises(DuoError, match="no target for the model's scheduler"):
        unet_noise(pipe, 64)
