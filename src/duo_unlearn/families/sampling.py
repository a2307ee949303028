"""The place in a pipeline's sampling where guards act: between the guided prediction and the scheduler's step."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .interface import Hooks, Step


class Watch:
    """What was seen of a pipeline's call. latents: after the last step, in the pipeline's layout; None before it."""

    latents: Tensor | None = None

    def faults(self, rows: int) -> list[str | None]:
        """Why each image is no picture, or None: its latents must be finite."""
        if self.latents is None:
            return [None] * rows
        finite = torch.isfinite(self.latents.flatten(1)).all(dim=1).tolist()
        return [None if whole else "its latents are not finite" for whole in finite]


@contextlib.contextmanager
def watched(scheduler: Any, hooks: Sequence[Hooks]) -> Iterator[Watch]:
    """Run the hooks of guards at every step of a scheduler inside the block; gives what was seen of its latents.

    Every pipeline of a supported family gives its guided prediction to `scheduler.step`, so that is where it is met.
    Schedulers that keep a history of predictions then keep the guarded ones.
    """
    watch, own = Watch(), scheduler.step

    # Pipelines look at the signature of `step`: one that draws noise gets the images' generators by that.
    @functools.wraps(own)
    def step(output: Tensor, timestep: Any, sample: Tensor, *rest: Any, **named: Any) -> Any:
        if any(hook.prediction or hook.clean for hook in hooks):
            output = _guarded(scheduler, hooks, output, timestep, sample)
        stepped = own(output, timestep, sample, *rest, **named)
        watch.latents = stepped[0] if isinstance(stepped, tuple) else stepped.prev_sample
        return stepped

    scheduler.step = step
    try:
        yield watch
    finally:
        del scheduler.step


def _guarded(scheduler: Any, hooks: Sequence[Hooks], output: Tensor, timestep: Any, sample: Tensor) -> Tensor:
    places = (scheduler.timesteps == timestep).nonzero().flatten()
    step = Step(sample, int(places[0]) if len(places) else 0, len(scheduler.timesteps))
    for hook in hooks:
        if hook.prediction is not None:
            output = hook.prediction(step, output)
        if hook.clean is not None:
            line = _clean_line(scheduler, timestep, step.number, sample)
            before = line.at(output)
            after = hook.clean(step, before)
            # A hook that gives its argument back leaves the prediction as it is, without rounding.
            output = output if after is before else output + (after - before).to(output) / line.slope
    return output


class _Line(NamedTuple):
    """x̂0 as a function of the prediction: offset + slope · prediction."""

    offset: Tensor
    slope: float

    def at(self, prediction: Tensor) -> Tensor:
        return self.offset + self.slope * prediction.float()


def _clean_line(scheduler: Any, timestep: Any, number: int, sample: Tensor) -> _Line:
    """How the clean latents follow from a prediction at a step, for each kind of scheduler.

    Rectified flow: x̂0 = x − σ v. Schedulers of unscaled latents (Euler): x = x0 + σ ε. Others: x = √ᾱ x0 + √(1−ᾱ) ε.
    """
    x, config = sample.float(), scheduler.config
    if not hasattr(scheduler, "alphas_cumprod"):
        return _Line(x, -float(scheduler.sigmas[number]))
    predicts_v = config.prediction_type == "v_prediction"
    if float(scheduler.init_noise_sigma) > 1.5:
        sigma = float(scheduler.sigmas[number])
        if predicts_v:
            return _Line(x / (sigma**2 + 1), -sigma / (sigma**2 + 1) ** 0.5)
        return _Line(x, -sigma)
    alpha = float(scheduler.alphas_cumprod[int(timestep)])
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    return _Line(signal * x, -noise) if predicts_v else _Line(x / signal, -noise / signal)
