"""LPIPS with AlexNet (Zhang et al. 2018), where the weights of its network are on the machine.

Its heads come with torchmetrics, whose own LPIPS needs torchvision, and a build of that which fits torch's; so the
network's five layers are here. Their weights are torchvision's file, in torch hub's folder.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import DuoError
from ..storage.files import sha256_of

FILE: Final = "alexnet-owt-7be5be79.pth"
DIGEST: Final = "7be5be79"
"""The first digits of the file's SHA-256, as its name says."""
NAME: Final = f"lpips-alex@{DIGEST}"
PIXELS: Final = 1 << 22
"""How many pixels are compared at once: their features take about 130 bytes a pixel."""
LEAST: Final = 63
"""The fewest pixels of a side that the network can read."""


class Lpips(nn.Module):
    """The network and its heads, from their state dicts (torchvision's names; `lin0` … of the published heads)."""

    shift: Tensor
    scale: Tensor

    def __init__(self, network: dict[str, Tensor], heads: dict[str, Tensor]) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        own = {name: value for name, value in network.items() if name.startswith("features.")}
        self.load_state_dict(own)
        self.heads = [heads[f"lin{i}.model.1.weight"].float() for i in range(5)]
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """The distance of each pair, (image,), ≥ 0, of images in −1 … 1, (image, 3, h, w)."""
        total, count = torch.zeros(len(first)), len(first)
        at, head = (torch.cat([first, second]) - self.shift) / self.scale, iter(self.heads)
        for layer in self.features:
            at = layer(at)
            if isinstance(layer, nn.ReLU):
                unit = at / (at.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)
                apart = (unit[:count] - unit[count:]).square()
                total = total + nn.functional.conv2d(apart, next(head)).mean(dim=(1, 2, 3))
        return total


def why_no_lpips(size: tuple[int, int] | None = None) -> str | None:
    """Why there is no LPIPS on this machine, or for images of a size, (width, height), or None."""
    if size is not None and min(size) < LEAST:
        return f"images of {size[0]} × {size[1]} pixels, its network reads {LEAST} and more"
    path = _path()
    if not path.exists():
        return f"{FILE} is not in torch hub's folder (https://download.pytorch.org/models/{FILE})"
    published = _digest(path, path.stat().st_mtime_ns).startswith(DIGEST)
    return None if published else f"{FILE} in torch hub's folder has another hash"


@functools.cache
def _digest(path: Path, _changed: int) -> str:
    return sha256_of(path)


@torch.no_grad()
def lpips(before: Sequence[Image.Image], after: Sequence[Image.Image]) -> list[float]:
    """The distance of each pair of images, ≥ 0; 0: the same image. Images of several sizes are a DuoError."""
    sides = {image.size for image in (*before, *after)}
    if len(sides) > 1:
        got = ", ".join(f"{width} × {height}" for width, height in sorted(sides)[:3])
        raise DuoError("LPIPS compares images of one size", got=got, hint="sample them again")
    size, distances = max(1, PIXELS // (before[0].width * before[0].height)), []
    for first in range(0, len(before), size):
        part = slice(first, first + size)
        distances += _published()(_pixels(before[part]), _pixels(after[part])).tolist()
    return distances


def _pixels(images: Sequence[Image.Image]) -> Tensor:
    arrays = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(arrays).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def _path() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


@functools.cache
def _published() -> Lpips:
    import torchmetrics

    heads = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    # Published files whose hash is known, or of a pinned package; weights_only reads tensors and runs nothing.
    network, read = (torch.load(path, weights_only=True, map_location="cpu") for path in (_path(), heads))
    return Lpips(network, read)
