"""Which of several processes this one is, by the variables that `torchrun` and `accelerate launch` set."""

from __future__ import annotations

import os

from .errors import DuoError


def world_size() -> int:
    """How many processes were started together; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first_process() -> bool:
    """Whether this one writes what is written once."""
    return int(os.environ.get("RANK", "0")) == 0


def local_index() -> int:
    """Which GPU of its machine this process takes."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def alone(stage: str) -> None:
    """Fail in a stage that one process does, when several were started."""
    if world_size() > 1:
        hint = "`duo pairs` by itself, then `torchrun … duo train`, then `duo evaluate` as often as you like"
        raise DuoError(f"duo {stage} is not for several processes", got=f"{world_size()}", hint=hint)
