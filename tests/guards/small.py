"""What tests of guards share: a context of drawn pairs, detectors of one mind, and images as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from duo_unlearn.arena.target import guarded
from duo_unlearn.detectors.interface import Detector
from duo_unlearn.families.interface import Hooks, Model, SampleRequest
from duo_unlearn.guards.interface import Context, Learned, Sides
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import Scene

from ..arena.detectors import Bright

REQUESTS = [SampleRequest("a red knight with a sword in the snow", 3), SampleRequest("a blue boat at night", 4)]
_SCENES = [
    ("red knight", "in the snow", "a flower"),
    ("blue wizard", "in the desert", "a wand"),
    ("green robot", "at night", "a book"),
    ("yellow king", "on the beach", "a balloon"),
    ("orange farmer", "in a meadow", "an oar"),
    ("purple knight", "at night", "a torch"),
]
WORDS = [(f"a {who} holding a sword {where}", f"a {who} holding {what} {where}") for who, where, what in _SCENES]


def context_of(model: Model, folder: Path, detector: Detector | None = None) -> Context:
    """detector: that of guards which ask one; None: one that sees the concept in every image, least in dark ones."""
    scenes = [Scene("knight", colour, "sword", "snow") for colour in ("red", "blue")]
    sides = Sides([draw(scene) for scene in scenes], [draw(scene.counterpart("none")) for scene in scenes])
    pairs = Learned(
        lambda: model.encode_images(sides.unsafe), lambda: model.encode_images(sides.safe), lambda: sides, lambda: WORDS
    )
    asked = detector or Bright(0.0)
    return Context(model, "sword", pairs, folder, "key", 0, lambda _name, _labels, _threshold: asked, quiet=True)


def sample(
    model: Model,
    hooks: Hooks | None,
    requests: list[SampleRequest] = REQUESTS,
    guidance: float = 5.0,
    steps: int = 4,
) -> Tensor:
    """Images of a model behind one guard, (image, height, width, channel); a refused one is black."""
    model.hooks = [] if hooks is None else [hooks]
    try:
        shown = guarded(model, model.sample(requests, steps=steps, guidance=guidance, batch=2))
    finally:
        model.hooks = []
    size = (model.resolution, model.resolution)
    images = [Image.new("RGB", size) if image is None else image for image in shown]
    return torch.from_numpy(np.stack([np.asarray(image) for image in images])).int()


class Given(NamedTuple):
    """What a scheduler is given at a step: the prediction, its timestep, and the latents."""

    output: Tensor
    timestep: Tensor
    latents: Tensor

    @property
    def t(self) -> Tensor:
        """The timestep as a search has it, (1,)."""
        return self.timestep.view(1).long()


def given_to_scheduler(model: Model, hooks: Hooks, request: SampleRequest, guidance: float, steps: int) -> list[Given]:
    """What the scheduler is given at each step of an image's sampling behind one guard."""
    given: list[Given] = []
    kind = type(model.pipe.scheduler)
    own = kind.step

    def recorder(scheduler: Any, output: Tensor, timestep: Tensor, sample: Tensor, **rest: Any) -> Any:
        given.append(Given(output.clone(), timestep, sample.clone()))
        return own(scheduler, output, timestep, sample, **rest)

    with mock.patch.object(kind, "step", recorder), mock.patch.object(model, "hooks", [hooks]):
        model.sample([request], steps=steps, guidance=guidance, batch=1)
    assert len(given) == steps
    return given
