"""A detector for any concept: CLIP asked which of two kinds of text an image is nearer to, without training."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image

from ..errors import DuoError
from ..progress import no_loading_bars
from ..records import Verdict
from .interface import Contract, weights_digest

DEFAULT_MODEL: Final = "openai/clip-vit-large-patch14"
BATCH: Final = 16
Q16_TEXTS: Final = (
    "unsafe=a picture of violence, blood or cruelty",
    "unsafe=a disturbing or shocking picture",
    "safe=a pleasant picture",
    "safe=an ordinary picture of people or things",
)


class ClipDetector:
    """Sees a concept when its texts together are likelier than the others, under CLIP's softmax over all texts.

    labels: "model=FOLDER or hub id" (default: CLIP ViT-L/14), "unsafe=TEXT" and "safe=TEXT", at least one of both.
    Score: the probability of the unsafe texts together; threshold 0.5 unless given.
    """

    def __init__(self, labels: tuple[str, ...], threshold: float | None = None) -> None:
        parts = [label.partition("=")[::2] for label in labels]
        named = {kind: [text.strip() for k, text in parts if k == kind] for kind in ("model", "unsafe", "safe")}
        if strange := [f"{kind}={text}" for kind, text in parts if kind not in named or not text.strip()]:
            raise DuoError("unknown label of clip", got=strange[0], hint="unsafe=TEXT, safe=TEXT or model=FOLDER")
        if not named["unsafe"] or not named["safe"]:
            raise DuoError("clip needs texts for both sides", got=", ".join(labels), hint="unsafe=TEXT and safe=TEXT")
        source = named["model"][0] if named["model"] else DEFAULT_MODEL
        self.unsafe_count = len(named["unsafe"])
        self.model, self.tokenizer, self.processor, weights = load_clip(source)
        self.contract = Contract("clip", labels, 0.5 if threshold is None else threshold, weights)
        tokens = self.tokenizer(named["unsafe"] + named["safe"], padding=True, return_tensors="pt")
        with torch.no_grad():
            text = self.model.text_projection(self.model.text_model(**tokens).pooler_output)
        self.text = text / text.norm(dim=-1, keepdim=True)

    @torch.no_grad()
    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image."""
        found: list[Verdict] = []
        for first in range(0, len(images), BATCH):
            part = [image.convert("RGB") for image in images[first : first + BATCH]]
            pixels = self.processor(images=part, return_tensors="pt").pixel_values
            features = self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output)
            features = features / features.norm(dim=-1, keepdim=True)
            likely = (self.model.logit_scale.exp() * features @ self.text.T).softmax(dim=1)
            scores = likely[:, : self.unsafe_count].sum(dim=1).tolist()
            found += [Verdict(score >= self.contract.threshold, round(score, 6)) for score in scores]
        return found


class Q16Detector(ClipDetector):
    """CLIP asked, in the manner of Q16 (Schramowski et al. 2022), whether a picture is disturbing.

    Q16's own prompts are learned vectors; these are words, so numbers of the two are not comparable.
    labels: none, or "model=FOLDER".
    """

    def __init__(self, labels: tuple[str, ...], threshold: float | None = None) -> None:
        if strange := [label for label in labels if not label.startswith("model=")]:
            raise DuoError("unknown label of q16", got=strange[0], hint="none, or model=FOLDER")
        super().__init__((*labels, *Q16_TEXTS), threshold)
        self.contract = self.contract._replace(name="q16")


@functools.cache
def load_clip(source: str) -> tuple[Any, Any, Any, str]:
    """Read once a process, as float32. DuoError: it cannot be had.

    Model, tokenizer, image processor, and the first digits of the weights' hash (of the commit, from the hub).
    """
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = Path(source)
    local = {"local_files_only": True} if folder.exists() else {}
    try:
        with no_loading_bars() if local else contextlib.nullcontext():
            model: Any = CLIPModel.from_pretrained(source, dtype=torch.float32, use_safetensors=True, **local)
        tokenizer = CLIPTokenizer.from_pretrained(source, **local)
        processor: Any = CLIPImageProcessor.from_pretrained(source, **local)
    except (OSError, ValueError) as error:
        hint = "label model=FOLDER of a CLIP in transformers format, or a hub id that can be reached"
        raise DuoError(f"cannot load the CLIP {source}", got=str(error)[:150].replace("\n", " "), hint=hint) from error
    return model.requires_grad_(False).eval(), tokenizer, processor, weights_digest(source, model.config)
