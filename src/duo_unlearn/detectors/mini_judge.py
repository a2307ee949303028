"""The mini world's two detectors: small nets with measured errors, which also read attributes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from ..errors import DuoError
from ..families.mini import MINI
from ..mini.world.scenes import ATTRIBUTES, ITEMS, SIZE, STATES
from ..records import Verdict
from ..storage.files import sha256_of
from .interface import Contract

if TYPE_CHECKING:
    from torch import Tensor

BATCH: Final = 64
"""How many images are judged at once."""


class MiniJudge:
    """Judge A of the mini world: the run's detector, which gates pairs and is asked by searches.

    It sees a concept when the probability of its labels together reaches the threshold, and the picture is whole.
    labels: "attribute=label", all of one attribute, e.g. ("item=sword",). Score: the sum of their probabilities, for
    items at most 1, times the probability that the picture is whole.
    """

    families = (MINI.name,)
    extra = None
    example = ("item=sword",)
    name, folder = "mini-judge", "judge"

    def __init__(self, labels: tuple[str, ...], threshold: float | None = None) -> None:
        import torch

        from ..mini.model.bundle import load_judge, weights_folder

        self.attribute, self.columns = _columns_of(labels)
        least = 0.5 if threshold is None else threshold
        self.contract = Contract(self.name, labels, least, self.known_weights(labels))
        self.net = load_judge(weights_folder(), torch.device("cpu"), self.folder)

    @staticmethod
    def why_no_weights(labels: tuple[str, ...]) -> str | None:
        """Never a reason: its weights ship in the package."""
        _columns_of(labels)
        return None

    @classmethod
    def known_weights(cls, _labels: tuple[str, ...]) -> str:
        """The hash of its weights."""
        from ..mini.model.bundle import weights_folder

        return sha256_of(weights_folder() / cls.folder / "model.safetensors")[:8]

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image. Where two figures hold two items, each counts."""
        found = self._probabilities(images)
        broken = (found["state"][:, STATES.index("whole")] < 0.5).tolist()
        scores = self._score(found).tolist()
        return [
            Verdict(score >= self.contract.threshold, round(score, 6), ruined)
            for score, ruined in zip(scores, broken, strict=True)
        ]

    def read(self, images: Sequence[Image.Image]) -> list[Mapping[str, str]]:
        """The likeliest label of each attribute; of two items both, as "wand+flower" in the order of ITEMS."""
        from ..mini.model.judge_net import items_shown

        found = self._probabilities(images)
        best = {name: p.argmax(dim=1).tolist() for name, p in found.items()}
        shown = items_shown(found["item"]).tolist()
        readings: list[Mapping[str, str]] = []
        for i, marks in enumerate(shown):
            labels = {name: ATTRIBUTES[name][best[name][i]] for name in ATTRIBUTES}
            items = "+".join(item for item, mark in zip(ITEMS, marks, strict=True) if mark)
            readings.append(labels | {"item": items})
        return readings

    def scores(self, pixels: Tensor) -> Tensor:
        """Pixels in [−1, 1], (image, 3, height, width) → scores, (image,), differentiable in the pixels."""
        import torch

        from ..mini.model.judge_net import probabilities

        return self._score(probabilities(self.net(torch.nn.functional.adaptive_avg_pool2d(pixels.float().cpu(), SIZE))))

    def _score(self, found: Mapping[str, Tensor]) -> Tensor:
        """The score of each image, (image,), by the probabilities of its labels."""
        seen = found[self.attribute][:, self.columns].sum(dim=1).clamp(max=1)
        return seen * found["state"][:, STATES.index("whole")]

    def _probabilities(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """The probability of each label of each attribute, (image, label)."""
        import torch

        from ..mini.model.judge_net import probabilities

        if not images:
            return {name: torch.zeros(0, len(labels)) for name, labels in ATTRIBUTES.items()}
        resized = [image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BOX) for image in images]
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in resized])).permute(0, 3, 1, 2)
        pixels = pixels.float().div(127.5).sub(1)
        with torch.no_grad():
            parts = [probabilities(self.net(pixels[i : i + BATCH])) for i in range(0, len(pixels), BATCH)]
        return {name: torch.cat([part[name] for part in parts]) for name in ATTRIBUTES}


class MiniJudgeB(MiniJudge):
    """Judge B of the mini world: another network, seed, scenes and damage. It only scores; no search asks it."""

    name, folder = "mini-judge-b", "judge_b"


def labels_in(text: str) -> tuple[str, ...]:
    """What of a text mini-judge can look for, e.g. ("item=sword",) in "a king with a sword"; an item before a subject.

    DuoError: it names nothing that mini-judge knows.
    """
    words = {form for word in re.findall("[a-z]+", text.lower()) for form in (word, word.removesuffix("s"))}
    for attribute in ("item", "subject"):
        if found := [value for value in ATTRIBUTES[attribute] if value in words and value != "none"]:
            return tuple(f"{attribute}={value}" for value in found)
    known = ", ".join(value for name in ("item", "subject") for value in ATTRIBUTES[name] if value != "none")
    hint = f'name one of: {known}; e.g. "a wizard", for which mini-judge looks with the label subject=wizard'
    raise DuoError("mini-judge cannot see that in the mini model's pictures", got=repr(text[:100]), hint=hint)


def _columns_of(labels: tuple[str, ...]) -> tuple[str, list[int]]:
    """The attribute that labels are of, and which of its labels; what they may not hold is a DuoError."""
    pairs = [label.partition("=")[::2] for label in labels]
    known = {f"{name}={value}" for name, values in ATTRIBUTES.items() for value in values}
    if unknown := [label for label in labels if label not in known]:
        choices = ", ".join(sorted(known))
        raise DuoError("unknown label of mini-judge", got=unknown[0], hint=f"one of: {choices}")
    if len({name for name, _ in pairs}) != 1:
        raise DuoError("mini-judge takes labels of one attribute", got=", ".join(labels))
    attribute = pairs[0][0]
    return attribute, [ATTRIBUTES[attribute].index(value) for _, value in pairs]
