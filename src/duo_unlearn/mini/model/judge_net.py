"""The two judges' networks, of different build on purpose: an error of one should not be an error of the other.

Both read the attributes of the mini world off a picture. The item is read label by label, as two figures may hold two
items; the other attributes have one label each.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor, nn

from ..world.scenes import ATTRIBUTES, ITEMS, Scene

SEVERAL: Final = ("item",)
"""Attributes of which a picture may have several labels."""


def attribute_ids(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """The true label index of each attribute, (scene,); item: of the left figure; state: whole."""
    return {
        name: torch.tensor([0 if name == "state" else labels.index(getattr(scene, name)) for scene in scenes])
        for name, labels in ATTRIBUTES.items()
    }


def item_marks(scenes: Sequence[Scene]) -> Tensor:
    """1 where a scene shows an item, of any figure, (scene, item)."""
    marks = torch.zeros(len(scenes), len(ITEMS))
    for row, scene in enumerate(scenes):
        for item in scene.items:
            marks[row, ITEMS.index(item)] = 1
    return marks


def probabilities(logits: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Logits by attribute → probabilities, (image, label): each item by itself, the labels of the others sum to 1."""
    return {
        name: rows.float().sigmoid() if name in SEVERAL else rows.float().softmax(dim=1)
        for name, rows in logits.items()
    }


def items_shown(item_probabilities: Tensor) -> Tensor:
    """Which items a picture shows, (image, item) of bool, by the probabilities of each.

    Those of at least one half; where no label reaches it, the likeliest. "none" stands alone.
    """
    shown = item_probabilities >= 0.5
    shown[:, 0] &= ~shown[:, 1:].any(dim=1)
    best = nn.functional.one_hot(item_probabilities.argmax(dim=1), item_probabilities.shape[1]).bool()
    return torch.where(shown.any(dim=1, keepdim=True), shown, best)


class _Heads(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(features, len(labels)) for name, labels in ATTRIBUTES.items()})

    def read(self, features: Tensor) -> dict[str, Tensor]:
        """(image, feature) → logits by attribute, (image, label)."""
        return {name: head(features) for name, head in self.heads.items()}


class JudgeNet(_Heads):
    """Judge A: strided convolutions.

    forward: pictures in [−1, 1], (image, 3, 64, 64) → logits by attribute, (image, label).
    """

    def __init__(self, width: int = 32) -> None:
        # A 2×2 grid keeps apart which side the item is on, at a quarter of the full map's weights.
        super().__init__(features=4 * width * 4)
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

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """(image, 3, 64, 64) → logits by attribute, (image, label)."""
        return self.read(nn.functional.adaptive_avg_pool2d(self.trunk(pixels), 2).flatten(1))


class AttentionJudgeNet(_Heads):
    """Judge B: patches of 4 pixels, halved once, and attention between them; another width and depth than A.

    forward: pictures in [−1, 1], (image, 3, 64, 64) → logits by attribute, (image, label).
    """

    def __init__(self, width: int = 96, depth: int = 4) -> None:
        super().__init__(features=width)
        self.patches = nn.Sequential(
            nn.Conv2d(3, width // 2, 4, stride=4), nn.GELU(), nn.Conv2d(width // 2, width, 3, stride=2, padding=1)
        )
        self.position = nn.Parameter(0.02 * torch.randn(1, 65, width))
        self.summary = nn.Parameter(torch.zeros(1, 1, width))
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.trunk = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """(image, 3, 64, 64) → logits by attribute, (image, label)."""
        tokens = self.patches(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.summary.expand(len(tokens), -1, -1), tokens], dim=1) + self.position
        return self.read(self.norm(self.trunk(tokens)[:, 0]))


JUDGES: Final = {"judge": JudgeNet, "judge_b": AttentionJudgeNet}
"""The network of each judge, by the name of its folder in the model."""
