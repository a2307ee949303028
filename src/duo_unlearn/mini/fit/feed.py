"""Batches made ahead of the training, by worker processes where there are cores for them.

A batch is a function of (seed, stage, step) alone, so it does not depend on who makes it.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset


class Draw(NamedTuple):
    """The randomness of one step."""

    rng: random.Random
    generator: torch.Generator


def draw_for(seed: int, stage: str, step: int) -> Draw:
    """Python's and torch's generators for one step of one stage."""
    rng = random.Random(f"{seed}/{stage}/{step}")
    return Draw(rng, torch.Generator().manual_seed(rng.getrandbits(62)))


Make = Callable[[Draw], Any]
"""Makes a step's batch: tensors on the CPU, or tuples of them."""
MOST_WORKERS: Final = 14


def worker_count() -> int:
    """How many processes draw: none on few cores, which the training itself needs, or where none can be forked."""
    cores = os.cpu_count() or 1
    return min(MOST_WORKERS, cores - 2) if sys.platform == "linux" and cores >= 6 else 0


class _Items(Dataset[Any]):
    def __init__(self, make: Callable[[Any], Any], items: Sequence[Any]) -> None:
        self.make, self.items = make, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.make(self.items[index])


def in_order(make: Callable[[Any], Any], items: Sequence[Any], workers: int | None = None) -> Iterator[Any]:
    """What `make` gives for each item, in order, made ahead by `workers` processes (None: worker_count())."""
    workers = worker_count() if workers is None else workers
    loader: DataLoader[Any] = DataLoader(
        _Items(make, items),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
        multiprocessing_context="fork" if workers else None,
        worker_init_fn=_one_thread,
    )
    return iter(loader)


def batches(make: Make, *, seed: int, stage: str, steps: range, workers: int | None = None) -> Iterator[Any]:
    """The batches of some steps, in order."""
    return in_order(lambda step: make(draw_for(seed, stage, step)), steps, workers)


def _one_thread(_worker: int) -> None:
    torch.set_num_threads(1)


def to_device(batch: Any, device: torch.device) -> Any:
    """A batch, or what a tuple of batches holds, on a device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple):
        moved = [to_device(part, device) for part in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else tuple(moved)
    return batch
