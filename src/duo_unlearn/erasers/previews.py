"""What a run gives a training to be watched by, and pictures of single steps while it goes on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from ..edits.lora import adapters_off
from ..families.interface import Model, SampleRequest
from ..records import Pair
from ..storage.files import write_json
from ..storage.pictures import save_png
from .preview_files import PROMPTS, preview_file, preview_steps, read_asked


class Watch(NamedTuple):
    """What a run gives a training to watch it by.

    pairs: held out, with their files in `folder`. requests: pictures, each drawn in `steps` with `guidance`. seed: of
    the held-out pairs' noise. sensitive: the pictures stay on this machine.
    """

    pairs: Sequence[Pair]
    folder: Path
    requests: Sequence[SampleRequest]
    steps: int
    guidance: float
    seed: int
    sensitive: bool = True


class Previews:
    """Pictures of single steps: a file a step, the pictures of all prompts side by side. Step 0 is the original."""

    def __init__(self, model: Model, watch: Watch, folder: Path, every: int) -> None:
        self.model, self.watch, self.folder, self.every = model, watch, folder, every

    def begin(self) -> None:
        """Draw the original's pictures, unless they are there; rows that were asked for otherwise are taken away."""
        if not self.every or not self.watch.requests:
            return
        asked = {
            "prompts": [request.words for request in self.watch.requests],
            "seeds": [request.seed for request in self.watch.requests],
            "steps": self.watch.steps,
            "guidance": self.watch.guidance,
            "model": f"{self.model.fingerprint()}, {self.model.variant}",
        }
        if read_asked(self.folder) == asked and preview_file(self.folder, 0).exists():
            return
        for step in preview_steps(self.folder):
            preview_file(self.folder, step).unlink()
        write_json(self.folder / PROMPTS, asked)
        with adapters_off(self.model.denoiser):
            self._draw(0)

    def after(self, step: int, *, last: bool) -> list[Image.Image]:
        """Draw a step's pictures where it is its turn; gives them, or none."""
        if not self.every or not self.watch.requests or not (last or step % self.every == 0):
            return []
        return self._draw(step)

    def _draw(self, step: int) -> list[Image.Image]:
        requests = list(self.watch.requests)
        try:
            with self.model.whole():
                images = self.model.sample(
                    requests, steps=self.watch.steps, guidance=self.watch.guidance, batch=len(requests)
                )
        except torch.OutOfMemoryError:
            # The whole model beside a training's state: what was asked for is the training.
            self.every = 0
            if self.model.device.type == "cuda":
                torch.cuda.empty_cache()
            print("train: previews are off, they need more memory than there is", file=sys.stderr, flush=True)
            return []
        width, height = images[0].size
        row = Image.new("RGB", (width * len(images), height))
        for place, image in enumerate(images):
            row.paste(image.convert("RGB"), (place * width, 0))
        save_png(row, preview_file(self.folder, step))
        return images
