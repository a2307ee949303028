"""Sampling along a given path: the pipeline starts from given latents, at any step, and may hold part of them fixed.

The pipeline itself samples, so guidance and guards act as everywhere; only its scheduler is another one meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from .denoising import dtype_of
from .interface import Model, SampleRequest, Trajectory
from .noise import Diffusion
from .ode import Ode, noise_of


@contextlib.contextmanager
def following(model: Model, trajectories: Sequence[Trajectory]) -> Iterator[dict[str, Any]]:
    """Inside the block the pipeline follows these trajectories, an image each; gives arguments of its call.

    They share steps and first step. Without any the pipeline is left as it is.
    """
    if not trajectories:
        yield {}
        return
    own = model.pipe.scheduler
    model.pipe.scheduler = follower = _Follower(model, trajectories)
    try:
        yield {"latents": follower.given, "num_inference_steps": len(follower.rest)}
    finally:
        model.pipe.scheduler = own


def from_pictures(model: Model, requests: Sequence[SampleRequest], steps: int) -> list[SampleRequest]:
    """Requests that start from pictures, alike in strength, as ones that follow a path from the noised picture: SDEdit.

    For a family that diffusers has no pipeline from images for. The path begins at the step at which theirs would.
    """
    noise = noise_of(model, [request.seed for request in requests])
    clean = model.encode_images([r.start.convert("RGB") for r in requests if r.start is not None]).mean.cpu()
    first = min(int(steps - steps * requests[0].strength), steps - 1)
    t = Ode.of(model.noise, steps).timesteps[first].repeat(len(requests))
    starts = model.noise.add_noise(clean, noise, t)
    paths = [Trajectory(start, steps, first) for start in starts]
    return [r._replace(start=None, trajectory=path) for r, path in zip(requests, paths, strict=True)]


class _Follower:
    """A scheduler, as pipelines call one, whose steps are those of an `Ode`. begun: the number of its first step."""

    order, init_noise_sigma = 1, 1.0

    def __init__(self, model: Model, trajectories: Sequence[Trajectory]) -> None:
        self.config = model.pipe.scheduler.config
        self.begun = self.number = trajectories[0].first
        self.ode = Ode.of(model.noise, trajectories[0].steps)
        self.rest = model.noise.network_time(self.ode.timesteps)[self.begun :]
        # By these a guard's hook on the clean latents knows what a prediction stands for.
        if isinstance(model.noise, Diffusion):
            self.alphas_cumprod = model.noise.alphas_cumprod
        else:
            self.sigmas = model.noise.network_time(self.ode.timesteps) / 1000
        place = model.device, dtype_of(model.denoiser)

        space = model.kind.latents

        def laid_out(parts: Sequence[Tensor]) -> Tensor:
            return space.pack(torch.stack([part.float() for part in parts]))

        self.start = laid_out([one.latents for one in trajectories]).to(*place)
        self.given = space.unpack(self.start) if space.pipeline_packs else self.start
        self.known = self.mask = None
        if trajectories[0].mask is not None:
            self.known = laid_out([_of(one.known) for one in trajectories]).to(model.device)
            masks = [_of(one.mask).expand_as(one.latents) for one in trajectories]
            self.mask = laid_out(masks).to(model.device) > 0

    def set_timesteps(
        self, _count: int | None = None, *, device: Any = None, sigmas: Any = None, mu: float | None = None
    ) -> None:
        """Its steps are set already, whatever a pipeline asks for."""
        del sigmas, mu
        self.timesteps = self.rest.to(device)

    def set_begin_index(self, index: int) -> None:
        """Pipelines say where they begin; it knows."""

    def scale_model_input(self, sample: Tensor, _timestep: Any) -> Tensor:
        """Latents are the network's input as they are."""
        return sample

    def step(self, output: Tensor, _timestep: Any, sample: Tensor, return_dict: bool = False) -> tuple[Tensor]:  # noqa: ARG002 pipelines name it
        """The latents after the next step; what is known stands outside the mask, at the noise level of that step."""
        moved = self.ode.after(self.number, sample.float(), output.float())
        if self.known is not None and self.mask is not None:
            known = self.ode.noised(self.number, self.known, self.start.float())
            moved = torch.where(self.mask, moved, known)
        self.number += 1
        return (moved.to(output.dtype),)  # as diffusers' own scheduler of flows gives them


def _of(part: Tensor | None) -> Tensor:
    assert part is not None, "a trajectory with a mask knows what stands outside it"
    return part
