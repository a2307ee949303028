"""The original model's images of plain prompts: sampled once a run, kept as files, shared by all that need them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from ..families.interface import SampleRequest
from ..runs.folder import Run
from ..storage.files import digest
from ..storage.pictures import read_image, save_png

MOST: Final = 64
"""About how many images a process claims at once: each claim is an open file."""


class Originals:
    """Gives images of prompts and seeds, (prompt,); what the run has is read, and the rest sampled.

    state: what decides an image beside its prompt and seed. sample: on the original model. batch: how many it samples
    at once.

    Each image is claimed by itself, so processes that want others sample side by side, and who wants the same waits for
    the one that makes it. Nobody waits while it holds such a claim: all are taken in one go, without waiting, and then
    there is sampling and writing alone. So whoever waits here, for all that it holds elsewhere, waits for a process
    that will end.
    """

    def __init__(
        self, run: Run, state: str, sample: Callable[[Sequence[SampleRequest]], list[Image.Image]], batch: int
    ) -> None:
        self.run, self.state, self.sample = run, state, sample
        self.most = batch * max(1, MOST // batch)

    def __call__(self, texts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """The images, in order."""
        requests = [SampleRequest(text, seed) for text, seed in zip(texts, seeds, strict=True)]
        paths = [self.path(text, seed) for text, seed in zip(texts, seeds, strict=True)]
        images = [read_image(path) for path in paths]
        while lacking := {path: requests[i] for i, path in enumerate(paths) if images[i] is None}:
            self._make(lacking)
            images = [read_image(path) if image is None else image for path, image in zip(paths, images, strict=True)]
        return [image for image in images if image is not None]

    def path(self, text: str, seed: int) -> Path:
        """The file of an image."""
        return self.run.originals / f"{digest([self.state, text, seed])[:16]}.png"

    def _make(self, lacking: dict[Path, SampleRequest]) -> None:
        """Make those that nobody makes now; where all are being made, wait until the first of them is there."""
        with self._claimed(list(lacking)) as mine:
            # Between the look and the claim another process may have made some.
            todo = [path for path in mine if read_image(path) is None]
            sampled = self.sample([lacking[path] for path in todo]) if todo else []
            for path, image in zip(todo, sampled, strict=True):
                save_png(image, path)
        if not mine:
            with self.run.claim(_name(next(iter(lacking))), wait=True):
                pass

    @contextlib.contextmanager
    def _claimed(self, paths: Sequence[Path]) -> Iterator[list[Path]]:
        """Hold those images that nobody holds, at most so many; gives them in order."""
        with contextlib.ExitStack() as stack:
            mine: list[Path] = []
            # One process chooses at a time: two that want the same would share it out at random, and what lies in a
            # batch with an image may be in its last bits.
            with self.run.claim("originals", wait=True):
                for path in paths:
                    with contextlib.ExitStack() as one:
                        if len(mine) < self.most and one.enter_context(self.run.claim(_name(path))):
                            stack.push(one.pop_all())
                            mine.append(path)
            yield mine


def _name(path: Path) -> str:
    return f"originals.{path.stem}"
