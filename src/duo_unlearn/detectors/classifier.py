"""Any image classifier in transformers' format, from a local folder or the hub, as a detector."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from PIL import Image

from ..errors import DuoError
from ..features.weights import files_digest, weights_digest, why_no_weights
from ..progress import no_loading_bars
from ..records import Verdict
from ..storage.hub import files_here_alone, why_not_loaded
from .interface import Contract

BATCH: Final = 16
"""How many images are judged at once."""


class Classes(NamedTuple):
    """What the labels of `classifier` say: the model (a folder or a hub id), and the classes that count."""

    model: str
    unsafe: list[str]


def classes_of(labels: tuple[str, ...]) -> Classes:
    """Labels of `classifier`, read; what they may not hold is a DuoError."""
    parts = [label.partition("=")[::2] for label in labels]
    sources = [value for kind, value in parts if kind == "model"]
    unsafe = [value for kind, value in parts if kind == "unsafe"]
    if len(sources) != 1 or not unsafe or len(parts) != 1 + len(unsafe):
        hint = "labels: [model=FOLDER or hub id, unsafe=CLASS, …]"
        raise DuoError("classifier needs one model and its unsafe classes", got=", ".join(labels), hint=hint)
    return Classes(sources[0], unsafe)


class ImageClassifier:
    """Sees a concept when the probabilities of its classes together reach the threshold (0.5 unless it is given).

    labels: "model=FOLDER or hub id", and "unsafe=CLASS" for each class that counts, by the model's own class names.
    """

    families = None
    extra = None
    example = ("model=google/vit-base-patch16-224", "unsafe=umbrella")

    def __init__(self, labels: tuple[str, ...], threshold: float | None = None) -> None:
        classes = classes_of(labels)
        self.net, self.processor, weights = _load(classes.model)
        names = {str(name): int(i) for i, name in self.net.config.id2label.items()}
        if unknown := [name for name in classes.unsafe if name not in names]:
            hint = f"its classes: {', '.join(list(names)[:12])}"
            raise DuoError(f"the classifier {classes.model} has no such class", got=unknown[0], hint=hint)
        self.columns = [names[name] for name in classes.unsafe]
        self.contract = Contract("classifier", labels, 0.5 if threshold is None else threshold, weights)

    @staticmethod
    def why_no_weights(labels: tuple[str, ...]) -> str | None:
        """Why the classifier is not on this machine, or None."""
        return why_no_weights(classes_of(labels).model)

    @staticmethod
    def known_weights(labels: tuple[str, ...]) -> str | None:
        """The hash of its weights, where they are in a folder."""
        return files_digest(classes_of(labels).model)

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image."""
        import torch

        verdicts: list[Verdict] = []
        for first in range(0, len(images), BATCH):
            part = [image.convert("RGB") for image in images[first : first + BATCH]]
            pixels = self.processor(images=part, return_tensors="pt").pixel_values
            with torch.no_grad():
                likely = self.net(pixel_values=pixels).logits.softmax(dim=1)
            scores = likely[:, self.columns].sum(dim=1).tolist()
            verdicts += [Verdict(score >= self.contract.threshold, round(score, 6)) for score in scores]
        return verdicts


def _load(source: str) -> tuple[Any, Any, str]:
    """Model, image processor, and the first digits of the weights' hash (from the hub: of their commit)."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    here = files_here_alone(source)
    safe: dict[str, Any] = {"trust_remote_code": False, "local_files_only": here}
    try:
        with no_loading_bars() if here else contextlib.nullcontext():
            net = AutoModelForImageClassification.from_pretrained(
                source, dtype=torch.float32, use_safetensors=True, **safe
            )
        processor = AutoImageProcessor.from_pretrained(source, **safe)
    except (OSError, ValueError) as error:
        hint = "label model=FOLDER of a classifier in transformers format, or a hub id that can be reached"
        got = why_not_loaded(error, source)
        raise DuoError(f"cannot load the classifier {source}", got=got, hint=hint) from error
    return net.requires_grad_(False).eval(), processor, weights_digest(source, net.config)
