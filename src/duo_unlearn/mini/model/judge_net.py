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
_LABELS: Final = [len(labels) for labels in ATTRIBUTES.values()]


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


class JudgeNet(nn.Module):
    """Judge A: strided convolutions.

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
        # A 2×2 grid keeps apart which side the item is on, at a quarter of the full map's weights.
        features = 4 * width * 4
        self.heads = nn.ModuleDict({name: nn.Linear(features, len(labels)) for name, labels in ATTRIBUTES.items()})

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """(image, 3, 64, 64) → logits by attribute, (image, label)."""
        features = nn.functional.adaptive_avg_pool2d(self.trunk(pixels), 2).flatten(1)
        return {name: head(features) for name, head in self.heads.items()}


class AttentionJudgeNet(nn.Module):
    """Judge B: a short stem down to an 8×8 grid, attention between its cells, and for each label a look of its own.

    Every label weighs the cells by where it finds its evidence, and sums what they say of it; so two figures' items do
    not share one summary. forward: pictures in [−1, 1], (image, 3, 64, 64) → logits by attribute, (image, label).
    """

    def __init__(self, width: int = 96, depth: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 3, 5, stride=2, padding=2),
            nn.GroupNorm(4, width // 3),
            nn.GELU(),
            nn.Conv2d(width // 3, 2 * width // 3, 3, stride=2, padding=1),
            nn.GroupNorm(8, 2 * width // 3),
            nn.GELU(),
            nn.Conv2d(2 * width // 3, width, 3, stride=2, padding=1),
        )
        self.position = nn.Parameter(0.02 * torch.randn(1, 64, width))
        layer = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.trunk = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        labels = sum(_LABELS)
        self.look, self.say = nn.Linear(width, labels), nn.Linear(width, labels)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """(image, 3, 64, 64) → logits by attribute, (image, label)."""
        cells = self.stem(pixels).flatten(2).transpose(1, 2)
        cells = self.norm(self.trunk(cells + self.position))
        logits = (self.look(cells).softmax(dim=1) * self.say(cells)).sum(dim=1)
        return dict(zip(ATTRIBUTES, logits.split(_LABELS, dim=1), strict=True))


JUDGES: Final = {"judge": JudgeNet, "judge_b": AttentionJudgeNet}
"""The network of each judge, by the name of its folder in the model."""
