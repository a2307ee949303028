"""The original model's images of plain prompts: sampled once a run, kept as files, shared by all that need them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..families.interface import SampleRequest
from ..runs.folder import Run
from ..storage.files import digest
from ..storage.pictures import read_image, save_png


class Originals:
    """Gives images of prompts and seeds, (prompt,); what the run has is read, and the rest sampled.

    state: what decides an image beside its prompt and seed. sample: on the original model.
    """

    def __init__(self, run: Run, state: str, sample: Callable[[Sequence[SampleRequest]], list[Image.Image]]) -> None:
        self.run, self.state, self.sample = run, state, sample

    def __call__(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """The images, in order."""
        paths = [self.path(text, seed) for text, seed in zip(texts, seeds, strict=True)]
        images = [read_image(path) for path in paths]
        if None not in images:
            return [image for image in images if image is not None]
        with self.run.claim("originals", wait=True):
            # Another process may have made some of them in the meantime.
            lacking = [i for i, path in enumerate(paths) if read_image(path) is None]
            sampled = self.sample([SampleRequest(texts[i], seeds[i]) for i in lacking]) if lacking else []
            for i, image in zip(lacking, sampled, strict=True):
                save_png(image, paths[i])
        return self(texts, seeds)

    def path(self, text: str, seed: int) -> Path:
        """The file of an image."""
        return self.run.originals / f"{digest([self.state, text, seed])[:16]}.png"
