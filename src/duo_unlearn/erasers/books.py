"""What a training writes after a step: its figures, its checkpoint, kept adapters and pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from PIL import Image

from ..runs.folder import Run
from ..runs.metrics import append_line, keep_lines
from .duo.held_out import HeldOut
from .duo.settings import TrainSettings
from .previews import Previews
from .step_adapters import Save, best_step, keep_step

TRACKERS: Final[dict[str, dict[str, Any]]] = {"tensorboard": {"dataformats": "NHWC"}, "wandb": {}}
"""The trackers that pictures are sent to, and what each has to be told of (picture, height, width, channel)."""


class Aside(NamedTuple):
    """What a training does beside its steps, none of which changes the adapter.

    save: keeps adapters of single steps. held_out: what they are measured on. previews: pictures of them.
    """

    save: Save | None = None
    held_out: HeldOut | None = None
    previews: Previews | None = None


class Books:
    """The files of one training; its first process keeps them.

    start: the step that it is taken up at. save_state: writes the checkpoint. trackers: accelerate's.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        settings: TrainSettings,
        start: int,
        save_state: Callable[[int], object],
        trackers: Sequence[Any],
        aside: Aside,
    ) -> None:
        self._metrics, self._kept = run.metrics(name), run.step_adapters(name)
        self._settings, self._save_state, self._trackers, self._aside = settings, save_state, trackers, aside
        self._lines = keep_lines(self._metrics, start)
        if aside.previews is not None:
            aside.previews.begin()

    def after(self, step: int, line: dict[str, float], *, stopping: bool) -> None:
        """Write what a step gave. step: counted from 1. The line gets what the held-out pairs give."""
        settings, aside = self._settings, self._aside
        last = step == settings.max_train_steps
        due = last or step % settings.checkpointing_steps == 0
        if due and aside.held_out is not None:
            line |= aside.held_out.measure()
        self._lines.append(line)
        append_line(self._metrics, line)
        if due and aside.save is not None:
            best = best_step(self._lines)
            keep_step(self._kept, step, aside.save, most=settings.keep_checkpoints, best=best)
        if aside.previews is not None and (last or not stopping):
            images = aside.previews.after(step, last=last)
            if images and not aside.previews.watch.sensitive:
                self._show(images, step)
        # After all that a step leaves: a training that is killed in between makes it again.
        if due or stopping:
            self._save_state(step)

    def _show(self, images: Sequence[Image.Image], step: int) -> None:
        """Send pictures to the trackers that take several in one array."""
        rows = np.stack([np.asarray(image.convert("RGB")) for image in images])
        for tracker in self._trackers:
            if tracker.name in TRACKERS:
                tracker.log_images({"previews": rows}, step=step, **TRACKERS[tracker.name])
