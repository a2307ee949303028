"""The optimizer of a training, and how its learning rate goes over it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..records import Decay


def adamw(tensors: Sequence[Tensor], rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with its usual betas. On a GPU an update is one kernel (a fifth of a step there); on a CPU bits stay."""
    fused = all(tensor.is_cuda for tensor in tensors)
    return torch.optim.AdamW(tensors, lr=rate, weight_decay=weight_decay, fused=fused or None)


def rate_factor(step: int, steps: int, decay: Decay) -> float:
    """What the learning rate is multiplied by at a step, counted from 0; a function of the step, so runs resume."""
    done = step / steps
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[decay]
