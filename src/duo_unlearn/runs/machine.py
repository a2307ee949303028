"""This process: which of several it is (variables of `torchrun` and `accelerate launch`), and how it keeps memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

from ..errors import DuoError


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


def keep_freed_memory() -> None:
    """Tell glibc to keep blocks that are freed, for the next ones.

    It gives big ones back to the system at once, and fetching them again costs training on a CPU a third of its time.
    Who has set glibc's own variables has decided already; other systems' libraries have no such call.
    """
    if sys.platform != "linux" or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & set(os.environ):
        return
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for name in (trim_threshold, mmap_threshold):
            library.mallopt(name, 2**31 - 1)
