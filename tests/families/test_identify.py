"""What is seen of a model folder before anything is loaded: its family and all of its faults."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import EDMEulerScheduler

from duo_unlearn.erasers.checkpoint import identity
from duo_unlearn.erasers.duo.settings import TrainSettings
from duo_unlearn.errors import DuoError
from duo_unlearn.export.single_file import checkpoint_of
from duo_unlearn.families.identify import family_of, is_hub_id, model_faults
from duo_unlearn.families.load import load_checkpoint, load_model
from duo_unlearn.families.noise import Diffusion
from duo_unlearn.families.parts import variant_of
from duo_unlearn.families.stable_diffusion import unet_noise
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.storage.files import read_tensors, write_tensors

from . import small_models as small

CPU = torch.device("cpu")
WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole Stable Diffusion folder: the mini model."""
    return Path(shutil.copytree(weights_folder(), tmp_path / "model"))


def said(folder: Path, *, weights: bool = False) -> list[str]:
    return [f"{fault} {fault.got}" for fault in model_faults(str(folder), weights=weights)[0]]


def change(path: Path, **values: object) -> None:
    """Other values in a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


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
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    found = said(folder)
    assert len(found) == 3
    assert any("prediction_type 'sample'" in one for one in found)
    with pytest.raises(DuoError):
        family_of(str(folder))


@pytest.mark.parametrize("content", ["", "{}", "[]", '[{"cross_attention_dim": 768}]', "null", "3"])
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_configuration_that_says_nothing(folder: Path, part: str, content: str) -> None:
    (folder / part / "config.json").write_text(content)
    (one,) = said(folder)
    assert f"{part}/config.json is no" in one


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("model_index.json", {"unet": ["my_unet", "MyUNet"]}),
        ("model_index.json", {"vae": ["my_vae", "MyVAE"]}),
        ("model_index.json", {"scheduler": "DDIMScheduler"}),
        ("model_index.json", {"tokenizer": {"transformers": "CLIPTokenizer"}}),
        ("unet/config.json", {"auto_map": {"AutoModel": "my_unet.MyUNet"}}),
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "mine--my_text.MyText"}}),
    ],
)
def test_code_of_the_models_own_is_refused(folder: Path, file: str, values: dict[str, object]) -> None:
    change(folder / file, **values)
    (one,) = said(folder)
    assert "names code of its own" in one
    assert file in one
    with pytest.raises(DuoError, match="names code of its own"):
        load_model(str(folder), CPU)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("model_index.json", {"unet": ["diffusers", "UNet3DConditionModel"]}),
        ("unet/config.json", {"_class_name": "MyUNet2DConditionModel"}),
    ],
)
def test_another_denoiser_is_refused(folder: Path, file: str, values: dict[str, object]) -> None:
    change(folder / file, **values)
    (one,) = said(folder)
    assert "a denoiser of another kind" in one
    assert file in one


@pytest.mark.parametrize("entry", [{"a": 1}, "T5EncoderModel", ["mine", "MyT5"]])
def test_an_optional_part_of_foreign_code(tmp_path: Path, entry: object) -> None:
    folder = small.sd3(tmp_path / "sd3")
    assert said(folder, weights=True) == []
    change(folder / "model_index.json", text_encoder_3=entry)
    (one,) = said(folder)
    assert "names code of its own" in one


def test_an_index_that_leaves_a_part_out(folder: Path) -> None:
    change(folder / "model_index.json", tokenizer=[None, None])
    (one,) = said(folder)
    assert "no tokenizer in model_index.json" in one


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_weights_that_are_not_finite_are_seen_where_it_is_asked_for(folder: Path, dtype: torch.dtype) -> None:
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = {name: value.to(dtype) for name, value in read_tensors(path)[0].items()}
    write_tensors(path, tensors)
    assert said(folder, weights=True) == []
    bad = sorted(tensors)[7]
    tensors[bad].view(-1)[3] = float("nan")
    write_tensors(path, tensors)
    (one,) = said(folder, weights=True)
    assert "not finite" in one
    assert bad in one
    assert said(folder) == []


def test_a_file_of_sdxl_that_predicts_v_says_so_and_is_read_so_alone(tmp_path: Path) -> None:
    """As ComfyUI does, which takes a file without the mark for one that predicts ε."""
    folder, path = small.sdxl(tmp_path / "model"), tmp_path / "model.safetensors"
    assert "v_pred" not in checkpoint_of(load_model(str(folder), CPU).pipe)
    shutil.copytree(folder, tmp_path / "v")
    change(
        tmp_path / "v" / "scheduler" / "scheduler_config.json",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    )
    tensors = checkpoint_of(load_model(str(tmp_path / "v"), CPU).pipe)
    assert {"v_pred", "ztsnr"} <= set(tensors)
    write_tensors(path, tensors)
    model = load_checkpoint(path, str(tmp_path / "v"), CPU)
    assert isinstance(model.noise, Diffusion)
    assert model.noise.prediction == "v_prediction"
    with pytest.raises(DuoError, match="predicts v") as caught:
        load_checkpoint(path, str(folder), CPU)
    assert "checkpoint_config" in str(caught.value.hint)


def test_a_file_for_inpainting_is_refused(tmp_path: Path) -> None:
    path, tensors = tmp_path / "model.safetensors", checkpoint_of(load_model("mini", CPU).pipe)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    write_tensors(path, {**tensors, first: torch.cat([tensors[first]] * 2, dim=1)})
    (one,) = said(path)
    assert "no picture from text alone" in one
    assert "8 channels" in one


def test_a_single_file_is_looked_into_as_well(tmp_path: Path) -> None:
    path, tensors = tmp_path / "model.safetensors", checkpoint_of(load_model("mini", CPU).pipe)
    name = next(name for name in sorted(tensors) if name.startswith("model.diffusion_model."))
    tensors[name] = torch.full_like(tensors[name], float("inf"))
    write_tensors(path, tensors)
    (one,) = said(path, weights=True)
    assert name in one
    assert family_of(str(path)) == "mini"


@pytest.mark.parametrize("source", ["x" * 300, "a/" + "x" * 300, "nul\0byte"])
def test_a_name_that_no_file_can_have(source: str) -> None:
    (fault,), family = model_faults(source)
    assert "there is no model" in fault.problem
    assert family is None


@pytest.mark.parametrize(
    ("source", "family"),
    [
        ("CompVis/stable-diffusion-v1-4", "sd1"),
        ("someone/something", "sd1"),
        ("stabilityai/stable-diffusion-2-1", "sd2"),
        ("stabilityai/stable-diffusion-xl-base-1.0", "sdxl"),
        ("RunDiffusion/Juggernaut-XL-v9", "sdxl"),
        ("stabilityai/sdxl-turbo", "sdxl"),
        ("stabilityai/stable-diffusion-3.5-medium", "sd3"),
        ("black-forest-labs/FLUX.1-dev", "flux"),
        ("black-forest-labs/FLUX.2-dev", "flux2"),
        ("black-forest-labs/FLUX.2-klein-base-4B", "flux2-klein"),
        ("Qwen/Qwen-Image", "qwen-image"),
        ("Tongyi-MAI/Z-Image-Turbo", "z-image"),
    ],
)
def test_a_hub_id_is_recognised_by_its_words(source: str, family: str) -> None:
    assert model_faults(source, weights=True) == ([], family)


def test_what_is_no_hub_id_is_sought_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    others = ("mini", "./folder", "a/b/c", "/abs", "runs/misspelt", "owner/-model", "owner/" + "long" * 30, "")
    assert [name for name in ("owner/model", *others) if is_hub_id(name)] == ["owner/model"]


def test_a_variant_beside_the_plain_weights_changes_nothing(folder: Path) -> None:
    plain = load_model(str(folder), CPU).fingerprint()
    for name, text in WEIGHTS.items():
        shutil.copy(folder / name / f"{text}.safetensors", folder / name / f"{text}.fp16.safetensors")
    assert load_model(str(folder), CPU).fingerprint() == plain


def test_a_folder_with_the_fp16_variant_alone_is_loaded(folder: Path) -> None:
    assert variant_of(folder) is None
    for part, name in WEIGHTS.items():
        (folder / part / f"{name}.safetensors").rename(folder / part / f"{name}.fp16.safetensors")
    assert variant_of(folder) == "fp16"
    model, plain = load_model(str(folder), CPU), load_model("mini", CPU)
    assert model.fingerprint() == plain.fingerprint()
    assert torch.equal(model.condition(["a red knight"]).text, plain.condition(["a red knight"]).text)


def test_a_scheduler_without_a_target_is_told_for_sdxl_too(tmp_path: Path) -> None:
    folder = small.sdxl(tmp_path / "sdxl")
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="sample")
    (one,) = said(folder)
    assert "prediction_type 'sample'" in one


def test_a_scheduler_without_a_noise_schedule_of_its_own_is_refused() -> None:
    pipe = SimpleNamespace(scheduler=EDMEulerScheduler())
    with pytest.raises(DuoError, match="no target for the model's scheduler"):
        unet_noise(pipe, 64)


def test_what_the_model_predicts_is_told_in_its_variant_so_that_nothing_of_the_other_is_taken_up(folder: Path) -> None:
    noise = load_model(str(folder), CPU)
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    velocity = load_model(str(folder), CPU)
    assert velocity.fingerprint() == noise.fingerprint()
    assert (noise.variant, velocity.variant) == ("64px, float32", "64px, float32, predicts v")
    assert identity(TrainSettings(), [], velocity, 0) != identity(TrainSettings(), [], noise, 0)
