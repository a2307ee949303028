"""The mini world's detector: a small convolutional net with a measured error, which also reads attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image

from ..errors import DuoError
from ..mini.model.bundle import load_judge, weights_folder
from ..mini.model.judge_net import ATTRIBUTES
from ..mini.world.scenes import SIZE
from ..records import Verdict
from ..storage.files import sha256_of
from .interface import Contract

BATCH = 64


class MiniJudge:
    """Sees a concept when the probability of its labels together reaches the threshold.

    labels: "attribute=label", all of one attribute, e.g. ("item=sword",). Score: the sum of their probabilities.
    """

    def __init__(self, labels: tuple[str, ...], threshold: float | None = None) -> None:
        pairs = [label.partition("=")[::2] for label in labels]
        known = {f"{name}={value}" for name, values in ATTRIBUTES.items() for value in values}
        if unknown := [label for label in labels if label not in known]:
            choices = ", ".join(sorted(known))
            raise DuoError("unknown label of mini-judge", got=unknown[0], hint=f"one of: {choices}")
        if len({name for name, _ in pairs}) != 1:
            raise DuoError("mini-judge takes labels of one attribute", got=", ".join(labels))
        self.attribute = pairs[0][0]
        self.columns = [ATTRIBUTES[self.attribute].index(value) for _, value in pairs]
        folder = weights_folder()
        weights = sha256_of(folder / "judge" / "model.safetensors")[:8]
        self.contract = Contract("mini-judge", labels, 0.5 if threshold is None else threshold, weights)
        self.net = load_judge(folder, torch.device("cpu"))

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image."""
        scores = self._probabilities(images)[self.attribute][:, self.columns].sum(dim=1).tolist()
        return [Verdict(score >= self.contract.threshold, round(score, 6)) for score in scores]

    def read(self, images: Sequence[Image.Image]) -> list[Mapping[str, str]]:
        """The likeliest label of each attribute."""
        best = {name: p.argmax(dim=1).tolist() for name, p in self._probabilities(images).items()}
        return [{name: ATTRIBUTES[name][best[name][i]] for name in ATTRIBUTES} for i in range(len(images))]

    @torch.no_grad()
    def _probabilities(self, images: Sequence[Image.Image]) -> dict[str, torch.Tensor]:
        if not images:
            return {name: torch.zeros(0, len(labels)) for name, labels in ATTRIBUTES.items()}
        resized = [image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX) for image in images]
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2)
        pixels = pixels.float().div(127.5).sub(1)
        parts = [self.net(pixels[i : i + BATCH]) for i in range(0, len(pixels), BATCH)]
        return {name: torch.cat([part[name] for part in parts]).softmax(dim=1) for name in ATTRIBUTES}
