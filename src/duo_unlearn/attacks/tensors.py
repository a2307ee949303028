"""How trajectories and conditionings lie among the tensors that findings name, to be kept and replayed."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..families.interface import Conditioning, Trajectory


def trajectory_tensors(name: str, trajectory: Trajectory) -> dict[str, Tensor]:
    """A trajectory as tensors under a name."""
    span = torch.tensor([trajectory.first, trajectory.steps])
    parts = {"latents": trajectory.latents, "span": span, "known": trajectory.known, "mask": trajectory.mask}
    return _named(name, parts)


def trajectory_of(tensors: Mapping[str, Tensor], name: str) -> Trajectory:
    """The trajectory of a name."""
    first, steps = tensors[f"{name}.span"].tolist()
    return Trajectory(
        tensors[f"{name}.latents"], steps, first, tensors.get(f"{name}.known"), tensors.get(f"{name}.mask")
    )


def conditioning_tensors(name: str, conditioning: Conditioning) -> dict[str, Tensor]:
    """A conditioning as tensors under a name."""
    return _named(name, {"text": conditioning.text, "pooled": conditioning.pooled})


def conditioning_of(tensors: Mapping[str, Tensor], name: str) -> Conditioning:
    """The conditioning of a name."""
    return Conditioning(tensors[f"{name}.text"], tensors.get(f"{name}.pooled"))


def _named(name: str, parts: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    # A copy each: a file holds no views, and none that share memory.
    return {
        f"{name}.{key}": part.detach().cpu().clone().contiguous() for key, part in parts.items() if part is not None
    }
