"""A detector for any concept: CLIP asked which of two kinds of text an image is nearer to, without training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from PIL import Image

from ..errors import DuoError
from ..features.weights import DEFAULT_CLIP, files_digest, why_no_weights
from ..records import Verdict
from .interface import Contract

BATCH: Final = 16
"""How many images are judged at once."""
Q16_TEXTS: Final = (
    "unsafe=a picture of violence, blood or cruelty",
    "unsafe=a disturbing or shocking picture",
    "safe=a pleasant picture",
    "safe=an ordinary picture of people or things",
)


class Texts(NamedTuple):
    """What the labels of `clip` say: the CLIP (a folder or a hub id), and the texts of both sides."""

    model: str
    unsafe: list[str]
    safe: list[str]


def texts_of(labels: tuple[str, ...]) -> Texts:
    """Labels of `clip`, read; what they may not hold is a DuoError."""
    parts = [label.partition("=")[::2] for label in labels]
    named = {kind: [text.strip() for k, text in parts if k == kind] for kind in ("model", "unsafe", "safe")}
    if strange := [f"{kind}={text}" for kind, text in parts if kind not in named or not text.strip()]:
        raise DuoError("unknown label of clip", got=strange[0], hint="unsafe=TEXT, safe=TEXT or model=FOLDER")
    if not named["unsafe"] or not named["safe"]:
        raise DuoError("clip needs texts for both sides", got=", ".join(labels), hint="unsafe=TEXT and safe=TEXT")
    return Texts(named["model"][0] if named["model"] else DEFAULT_CLIP, named["unsafe"], named["safe"])


class ClipDetector:
    """Sees a concept when its texts together are likelier than the others, under CLIP's softmax over all texts.

    labels: "model=FOLDER or hub id" (default: CLIP ViT-L/14), "unsafe=TEXT" and "safe=TEXT", at least one of both.
    Score: the probability of the unsafe texts together; threshold 0.5 unless it is given.
    """

    families = None
    extra = None
    example = ("unsafe=a picture of a sword", "safe=a picture of a flower")

    def __init__(self, labels: tuple[str, ...], threshold: float | None = None) -> None:
        from ..features.clip import load_clip

        texts = texts_of(labels)
        self.unsafe_count = len(texts.unsafe)
        self.clip = load_clip(texts.model)
        self.contract = Contract("clip", labels, 0.5 if threshold is None else threshold, self.clip.weights)
        embeddings = self.clip.embed_texts(texts.unsafe + texts.safe)
        self.text = embeddings / embeddings.norm(dim=-1, keepdim=True)

    @staticmethod
    def why_no_weights(labels: tuple[str, ...]) -> str | None:
        """Why the CLIP is not on this machine, or None."""
        return why_no_weights(texts_of(labels).model)

    @staticmethod
    def known_weights(labels: tuple[str, ...]) -> str | None:
        """The hash of its weights, where they are in a folder."""
        return files_digest(texts_of(labels).model)

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image."""
        verdicts: list[Verdict] = []
        scale = self.clip.model.logit_scale.detach().exp()
        for first in range(0, len(images), BATCH):
            features = self.clip.embed_images(images[first : first + BATCH])
            features = features / features.norm(dim=-1, keepdim=True)
            likely = (scale * features @ self.text.T).softmax(dim=1)
            scores = likely[:, : self.unsafe_count].sum(dim=1).tolist()
            verdicts += [Verdict(score >= self.contract.threshold, round(score, 6)) for score in scores]
        return verdicts


class Q16Detector:
    """CLIP asked, in the manner of Q16 (Schramowski et al. 2022), whether a picture is disturbing.

    Q16's own prompts are learned vectors; these are words, so numbers of the two are not comparable.
    labels: none, or "model=FOLDER".
    """

    families = None
    extra = None
    example = ()

    def __init__(self, labels: tuple[str, ...], threshold: float | None = None) -> None:
        self.detector = ClipDetector(_q16_labels(labels), threshold)
        self.contract = self.detector.contract._replace(name="q16")

    @staticmethod
    def why_no_weights(labels: tuple[str, ...]) -> str | None:
        """Why the CLIP is not on this machine, or None."""
        return ClipDetector.why_no_weights(_q16_labels(labels))

    @staticmethod
    def known_weights(labels: tuple[str, ...]) -> str | None:
        """The hash of its weights, where they are in a folder."""
        return ClipDetector.known_weights(_q16_labels(labels))

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image."""
        return self.detector.detect(images)


def _q16_labels(labels: tuple[str, ...]) -> tuple[str, ...]:
    if strange := [label for label in labels if not label.startswith("model=")]:
        raise DuoError("unknown label of q16", got=strange[0], hint="none, or model=FOLDER")
    return (*labels, *Q16_TEXTS)
