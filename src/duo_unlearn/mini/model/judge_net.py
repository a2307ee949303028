"""The judge's network: one convolutional trunk, a head for each attribute of the mini world."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from ..world.scenes import ATTRIBUTES, Scene


def attribute_ids(scenes: list[Scene]) -> dict[str, Tensor]:
    """The true label index of each attribute, (scene,)."""
    return {
        name: torch.tensor([labels.index(getattr(scene, name)) for scene in scenes])
        for name, labels in ATTRIBUTES.items()
    }


class JudgeNet(nn.Module):
    """Reads item, subject, colour and place off a picture of the mini world.

    forward: pictures in [−1, 1], (image, 3, 64, 64) → logits by attribute, (image, label).
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        channels = (3, width, 2 * width, 3 * width, 4 * width)
        blocks: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            blocks += [
                nn.Conv2d(before, after, 3, stride=2, padding=1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
                nn.Conv2d(after, after, 3, padding=1),
                nn.GroupNorm(8, after),
                nn.SiLU(),
            ]
        self.trunk = nn.Sequential(*blocks)
        features = 4 * width * 4
        self.heads = nn.ModuleDict({name: nn.Linear(features, len(labels)) for name, labels in ATTRIBUTES.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """(image, 3, 64, 64) → logits by attribute, (image, label)."""
        # A 2×2 grid keeps apart which side the item is on, at a quarter of the full map's weights.
        features = nn.functional.adaptive_avg_pool2d(self.trunk(pixels), 2).flatten(1)
        return {name: head(features) for name, head in self.heads.items()}
