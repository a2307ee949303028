"""How a learning rate goes over a training."""

from __future__ import annotations

import math

from ..records import Decay


def rate_factor(step: int, steps: int, decay: Decay) -> float:
    """What the learning rate is multiplied by at a step, counted from 0; a function of the step, so runs resume."""
    done = step / steps
    return {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[decay]
