"""Edits that others made, and that are none: each is refused in three lines, and nothing is left of it."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch

from duo_unlearn.edits.foreign import add_edit
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Model
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.storage.files import read_tensors, write_json, write_tensors

from ..families import small_models
from ..random_adapter import random_adapter
from .mini import mini, weights
from .others import trained_by_peft

NOTHING = (2).to_bytes(8, "little") + b"{}"
"""A safetensors file without tensors."""


@pytest.fixture(scope="module")
def model() -> Model:
    return mini()


def refused(folder: Path, model: Model, said: str, **source: Path) -> None:
    """A source is refused with these words, and nothing is left of it."""
    with pytest.raises(DuoError) as caught:
        add_edit(model, folder / "edits" / "x", "x", **source)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
    assert not list((folder / "edits").iterdir())


def test_folders_that_are_no_edit_of_the_base(model: Model, tmp_path: Path) -> None:
    shutil.copytree(weights_folder(), tmp_path / "same")
    refused(tmp_path, model, "no weight differs", erased=tmp_path / "same")
    refused(tmp_path, model, "there is no erased model", erased=tmp_path / "nowhere")
    (tmp_path / "blank").mkdir()
    refused(tmp_path, model, "is not a diffusers model", erased=tmp_path / "blank")
    refused(tmp_path, model, "a model of sdxl", erased=small_models.sdxl(tmp_path / "xl"))
    state, metadata = read_tensors(tmp_path / "same" / "unet" / "diffusion_pytorch_model.safetensors")
    path = tmp_path / "same" / "unet" / "diffusion_pytorch_model.safetensors"
    write_tensors(path, {k: v for k, v in state.items() if k != "conv_in.bias"}, metadata)
    refused(tmp_path, model, "missing weight unet.conv_in.bias", erased=tmp_path / "same")
    write_tensors(path, state | {"no.such": torch.zeros(2)}, metadata)
    refused(tmp_path, model, "unknown weight unet.no.such", erased=tmp_path / "same")
    write_tensors(path, state | {"conv_in.bias": state["conv_in.bias"] * float("nan")}, metadata)
    refused(tmp_path, model, "not finite", erased=tmp_path / "same")
    write_tensors(path, state | {"conv_in.bias": torch.zeros(3)}, metadata)
    refused(tmp_path, model, "unet", erased=tmp_path / "same")


def test_a_folder_of_another_size(model: Model, tmp_path: Path) -> None:
    shutil.copytree(weights_folder(), tmp_path / "wide")
    folder = tmp_path / "wide" / "unet"
    config = json.loads((folder / "config.json").read_text())
    from diffusers import UNet2DConditionModel

    larger = {"block_out_channels": [2 * width for width in config["block_out_channels"]]}
    shutil.rmtree(folder)
    UNet2DConditionModel.from_config({**config, **larger}).save_pretrained(folder)
    refused(tmp_path, model, "weight of another size unet.", erased=tmp_path / "wide")


def test_state_dicts_that_are_none_of_the_part(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "theirs.safetensors"
    wrong: list[tuple[dict[str, torch.Tensor], str]] = [
        ({"model.diffusion_model.out.2.weight": torch.zeros(2)}, "unknown weight unet.model.diffusion_model"),
        ({"conv_in.weight": torch.zeros(2, 2)}, "weight of another size unet.conv_in.weight"),
        ({"conv_in.bias": torch.full((64,), float("nan"))}, "not finite"),
        ({"conv_in.bias": weights(model, "unet")["unet.conv_in.bias"]}, "no weight differs"),
    ]
    for tensors, said in wrong:
        write_tensors(path, tensors)
        refused(tmp_path, model, said, unet=path)
    path.write_bytes(NOTHING)
    refused(tmp_path, model, "holds no weights", unet=path)
    write_tensors(path, {"conv_in.weight": torch.zeros(2)})
    refused(tmp_path, model, "unknown weight text_encoder.conv_in.weight", text_encoder=path)
    (tmp_path / "theirs.pt").write_bytes(pickle.dumps({"a": 1}))
    refused(tmp_path, model, "pickle that could run code", unet=tmp_path / "theirs.pt")
    shutil.copy(tmp_path / "theirs.pt", tmp_path / "hidden.safetensors")
    refused(tmp_path, model, "pickle that could run code", unet=tmp_path / "hidden.safetensors")
    refused(tmp_path, model, "cannot read", unet=tmp_path / "nowhere.safetensors")
    refused(tmp_path, model, "cannot read", unet=tmp_path)
    (tmp_path / "half.safetensors").write_bytes(b"x")
    refused(tmp_path, model, "Try: fetch the file again", unet=tmp_path / "half.safetensors")


def test_adapters_that_are_not_whole_or_none(model: Model, tmp_path: Path) -> None:
    random_adapter(mini(), tmp_path / "ours", size=0.2, rank=2)
    good = read_tensors(tmp_path / "ours" / "pytorch_lora_weights.safetensors")[0]
    first = min(good)
    assert first.endswith("lora_A.weight")
    path = tmp_path / "theirs.safetensors"
    other = first.replace("lora_A", "lora_B")
    wrong: list[tuple[dict[str, torch.Tensor], str]] = [
        ({k: v for k, v in good.items() if k != first}, "no lora_A for"),
        ({k: v for k, v in good.items() if k != other}, "no lora_B for"),
        (good | {"unet.odd.lora_A.weight": good[first], "unet.odd.lora_B.weight": good[other]}, "no layer unet.odd"),
        (good | {first: good[first][:, 1:]}, "the model's is"),
        (good | {first: good[first][1:]}, "rank 1 and 2"),
        (good | {first: good[first] * float("nan")}, "not finite"),
        (good | {first.replace("lora_A", "dora_scale"): good[first]}, "no plain LoRA"),
        (good | {"unet.conv_in.bias": torch.zeros(3)}, "a weight that no adapter has"),
        ({"transformer.x.lora_A.weight": good[first], "transformer.x.lora_B.weight": good[other]}, "no such weight"),
        ({"lora_unet_x.hada_w1_a": torch.zeros(2, 2)}, "no plain LoRA"),
        ({"conv_in.weight": torch.zeros(2, 2)}, "no adapter"),
    ]
    for tensors, said in wrong:
        write_tensors(path, {name: value.clone() for name, value in tensors.items()})
        refused(tmp_path, model, said, lora=path)
    path.write_bytes(NOTHING)
    refused(tmp_path, model, "holds no weights", lora=path)
    path.write_bytes(b"x")
    refused(tmp_path, model, "Try: fetch the file again", lora=path)
    write_tensors(path, good, {"lora_adapter_metadata": "{"})
    refused(tmp_path, model, "broken metadata", lora=path)
    refused(tmp_path, model, "0 safetensors files", lora=tmp_path / "edits")


def test_plain_peft_without_its_configuration(model: Model, tmp_path: Path) -> None:
    trained_by_peft(tmp_path / "theirs")
    config = tmp_path / "theirs" / "adapter_config.json"
    known = json.loads(config.read_text())
    for change, said in (
        ({"use_dora": True}, "more than a plain LoRA"),
        ({"rank_pattern": {"to_q": 1}}, "more than a plain LoRA"),
        ({"r": 0}, "no alpha and rank"),
        ({"lora_alpha": None}, "no alpha and rank"),
    ):
        write_json(config, known | change)
        refused(tmp_path, model, said, lora=tmp_path / "theirs")
    write_json(config, [])
    refused(tmp_path, model, "no alpha and rank", lora=tmp_path / "theirs")
    config.unlink()
    refused(tmp_path, model, "carries no alpha", lora=tmp_path / "theirs")


def test_one_source_is_named(model: Model, tmp_path: Path) -> None:
    for sources in ({}, {"unet": tmp_path / "a", "lora": tmp_path / "b"}):
        with pytest.raises(DuoError, match="an edit has one source"):
            add_edit(model, tmp_path / "edits" / "x", "x", **sources)
