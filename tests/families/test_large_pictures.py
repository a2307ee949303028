"""Pictures above 256 px go through the VAE one at a time; what comes out is the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from duo_unlearn.families.load import load_model
from duo_unlearn.families.model import DiffusersModel

from . import small_models as small


def test_large_pictures_go_one_by_one(tmp_path: Path) -> None:
    folder = str(small.sdxl(tmp_path / "model"))
    whole, sliced = (load_model(folder, torch.device("cpu"), resolution=side) for side in (256, 272))
    assert isinstance(whole, DiffusersModel)
    assert isinstance(sliced, DiffusersModel)
    assert (whole.pipe.vae.use_slicing, sliced.pipe.vae.use_slicing) == (False, True)
    pictures = [Image.new("RGB", (272, 272), colour) for colour in ("red", "blue")]
    both = sliced.encode_images(pictures)
    for i, picture in enumerate(pictures):
        alone = sliced.encode_images([picture])
        assert both.mean[i].numpy() == pytest.approx(alone.mean[0].numpy(), abs=1e-5)
