"""Small models that detectors read from a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from duo_unlearn.mini.model.bundle import weights_folder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini world's CLIP as a user has one: model, tokenizer and image processor in a folder."""
    from transformers import CLIPImageProcessor

    folder = tmp_path_factory.mktemp("clip")
    for part in ("clip", "tokenizer"):
        shutil.copytree(weights_folder() / part, folder, dirs_exist_ok=True)
    size = {"height": 64, "width": 64}
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessor(size=size, crop_size=size, image_mean=half, image_std=half).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small classifier of transformers' own classes, with weights from a seed."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("classifier")
    config = ViTConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8,
        id2label={0: "calm", 1: "violent", 2: "cruel"},
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder
