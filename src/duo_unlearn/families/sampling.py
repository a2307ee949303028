"""The place in a pipeline's sampling where guards act: between the guided prediction and the scheduler's step."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .interface import Away, Branches, Conditioning, Hooks, Later, Step


class Denoiser(NamedTuple):
    """The network that a pipeline asks while it samples, and the scale of guidance.

    predict(latents, time, conditioning): its output for latents as the pipeline hands them to it, and times (b,).
    output, positive_first: see `Family`.
    """

    network: nn.Module
    predict: Callable[[Tensor, Tensor, Conditioning], Tensor]
    scale: float
    output: Callable[[Any], Tensor]
    positive_first: bool


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
def watched(scheduler: Any, hooks: Sequence[Hooks], denoiser: Denoiser) -> Iterator[Watch]:
    """Run the hooks of guards at every step of a scheduler inside the block; gives what was seen of its latents.

    Every pipeline of a supported family gives its guided prediction to `scheduler.step`, so that is where it is met.
    Schedulers that keep a history of predictions then keep the guarded ones.
    """
    watch, own, rows = Watch(), scheduler.step, _Rows(denoiser.output)
    memory: dict[str, Tensor] = {}

    # Pipelines look at the signature of `step`: one that draws noise gets the images' generators by that.
    @functools.wraps(own)
    def step(output: Tensor, timestep: Any, sample: Tensor, *rest: Any, **named: Any) -> Any:
        if any(hook.prediction or hook.clean for hook in hooks):
            branches = _branches(scheduler, denoiser, rows.all(), timestep, sample)
            seen = _step(scheduler, timestep, sample, branches, memory)
            line_of = functools.partial(_clean_line, scheduler, timestep, seen.number, sample)
            output = after_guards(hooks, output, seen, line_of)
        rows.seen.clear()
        stepped = own(output, timestep, sample, *rest, **named)
        watch.latents = stepped[0] if isinstance(stepped, tuple) else stepped.prev_sample
        return stepped

    scheduler.step = step
    needed = any(hook.prediction for hook in hooks)
    seen = denoiser.network.register_forward_hook(rows.keep) if needed else None
    try:
        yield watch
    finally:
        del scheduler.step
        if seen is not None:
            seen.remove()


class _Rows:
    """The denoiser's outputs at a step of a pipeline's call: both branches of guidance, before they are mixed.

    Pipelines ask for them in one pass or in two.
    """

    def __init__(self, output: Callable[[Any], Tensor]) -> None:
        self.output = output
        self.seen: list[Tensor] = []

    def keep(self, _network: nn.Module, _inputs: Any, output: Any) -> None:
        self.seen.append(self.output(output))

    def all(self) -> Tensor | None:
        return torch.cat(self.seen) if self.seen else None


def _branches(
    scheduler: Any, denoiser: Denoiser, rows: Tensor | None, timestep: Any, sample: Tensor
) -> Branches | None:
    """The branches of a step; None where the pipeline asked for one row an image."""
    count = len(sample)
    if rows is None or len(rows) != 2 * count:
        return None

    def predict(conditioning: Conditioning) -> Tensor:
        scaled = scheduler.scale_model_input(sample, timestep) if hasattr(scheduler, "scale_model_input") else sample
        time = timestep.to(sample.device).expand(count)
        return denoiser.predict(scaled.to(rows), time, conditioning.map(lambda x: x.to(rows)))

    positive, negative = (rows[:count], rows[count:]) if denoiser.positive_first else (rows[count:], rows[:count])
    return Branches(positive, negative, denoiser.scale, predict)


def _step(scheduler: Any, timestep: Any, sample: Tensor, branches: Branches | None, memory: dict[str, Tensor]) -> Step:
    places = (scheduler.timesteps == timestep).nonzero().flatten()
    # A trajectory that starts part way has the rest of its steps alone in the list.
    begun = getattr(scheduler, "begun", 0)
    number = begun + (int(places[0]) if len(places) else 0)
    return Step(sample, number, begun + len(scheduler.timesteps), branches, memory)


def after_guards(hooks: Sequence[Hooks], output: Tensor, step: Step, line_of: Callable[[], Line]) -> Tensor:
    """A step's prediction as guards change it, in the pipeline's layout. line_of(): what it says of clean latents."""
    for hook in hooks:
        if hook.prediction is not None:
            output = hook.prediction(step, output)
        if hook.clean is not None:
            line = line_of()
            before = line.at(output)
            after = hook.clean(step, before)
            # A hook that gives its argument back leaves the prediction as it is, without rounding.
            output = output if after is before else output + (after - before).to(output) / line.slope
    return output


def term_of(away: Away) -> Hooks:
    """The hook on the prediction of a further term of guidance. Without a negative branch it does nothing."""

    def prediction(step: Step, guided: Tensor) -> Tensor:
        if step.branches is None:
            return guided
        difference = step.branches.predict(away.conditioning) - step.branches.negative
        weight = away.weight.to(difference).view(-1, *(1,) * (difference.ndim - 1))
        return guided - step.branches.scale * weight * difference

    return Hooks(prediction=prediction)


def reads_later(later: Later, number: int | Tensor, steps: int) -> Tensor:
    """Which prompts read the later text at a step, (prompt,). number: of the step, from 0: one, or each prompt's."""
    return number > later.share * steps


def switched(later: Later, steps: int) -> dict[str, Any]:
    """Arguments of a pipeline's call by which the prompts' text changes on the way."""
    count = len(later.text)

    def at_end(_pipe: Any, done: int, _timestep: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        text = inputs["prompt_embeds"]  # where there is a negative branch, that one's comes first
        due = reads_later(later, done + 1, steps).to(text.device).view(-1, 1, 1)
        positive = torch.where(due, later.text.to(text), text[-count:])
        return {"prompt_embeds": torch.cat([text[:-count], positive])}

    return {"callback_on_step_end": at_end, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}


class Line(NamedTuple):
    """x̂0 as a function of the prediction: offset + slope · prediction. slope: one for all rows, or one a row."""

    offset: Tensor
    slope: float | Tensor

    def at(self, prediction: Tensor) -> Tensor:
        """x̂0 for a prediction, float32."""
        return self.offset + self.slope * prediction.float()


def _clean_line(scheduler: Any, timestep: Any, number: int, sample: Tensor) -> Line:
    """How the clean latents follow from a prediction at a step, for each kind of scheduler.

    Rectified flow: x̂0 = x − σ v. Schedulers of unscaled latents (Euler): x = x0 + σ ε. Others: x = √ᾱ x0 + √(1−ᾱ) ε.
    """
    x, config = sample.float(), scheduler.config
    if not hasattr(scheduler, "alphas_cumprod"):
        return Line(x, -float(scheduler.sigmas[number]))
    predicts_v = config.prediction_type == "v_prediction"
    if float(scheduler.init_noise_sigma) > 1.5:
        sigma = float(scheduler.sigmas[number])
        if predicts_v:
            return Line(x / (sigma**2 + 1), -sigma / (sigma**2 + 1) ** 0.5)
        return Line(x, -sigma)
    alpha = float(scheduler.alphas_cumprod[int(timestep)])
    signal, noise = alpha**0.5, (1 - alpha) ** 0.5
    return Line(signal * x, -noise) if predicts_v else Line(x / signal, -noise / signal)
