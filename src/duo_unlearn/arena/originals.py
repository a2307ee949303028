"""The original model's images of prompts: sampled once, kept as files, and shared by attacks, models and processes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..detectors.interface import UNREADABLE
from ..families.interface import SampleRequest
from ..runs.folder import Run
from .groups import save_png


class Originals:
    """Gives images of prompts and seeds, (prompt,); what the run has is read, and the rest sampled.

    state: what decides an image beside its prompt and seed. sample: on the original model.
    """

    def __init__(self, run: Run, state: str, sample: Callable[[Sequence[SampleRequest]], list[Image.Image]]) -> None:
        self.run, self.state, self.sample = run, state, sample

    def __call__(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """The images, in order."""
        paths = [self._path(text, seed) for text, seed in zip(texts, seeds, strict=True)]
        images = [_read(path) for path in paths]
        if None not in images:
            return [image for image in images if image is not None]
        with self.run.claim("originals", wait=True):
            # Another process may have made some of them in the meantime.
            lacking = [i for i, path in enumerate(paths) if _read(path) is None]
            made = self.sample([SampleRequest(texts[i], seeds[i]) for i in lacking]) if lacking else []
            for i, image in zip(lacking, made, strict=True):
                save_png(image, paths[i])
        return self(texts, seeds)

    def _path(self, text: str, seed: int) -> Path:
        basis = json.dumps([self.state, text, seed])
        return self.run.originals / f"{hashlib.sha256(basis.encode()).hexdigest()[:16]}.png"


def _read(path: Path) -> Image.Image | None:
    """An image, or None where there is none or its file is broken: then it is made again."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except UNREADABLE:
        return None
