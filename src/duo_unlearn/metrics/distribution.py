"""FID, KID and CMMD between two sets of images, from features that come in batches and do not all stay in memory.

FID (Heusel et al. 2017) and KID (Bińkowski et al. 2018) are torchmetrics'. FID needs sums alone. KID and CMMD
(Jayasumana et al. 2024) compare every row with every other, so they are the mean over blocks of at most BLOCK rows a
side; with no more images than that they are the whole. Intervals: the jackknife over GROUPS groups of rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

BLOCK: Final = 1000
GROUPS: Final = 5
LEAST: Final = {"fid": 100, "kid": 20, "cmmd": 20}
"""With fewer images a side there is no number."""
SIGMA: Final = 10.0
"""Of CMMD's kernel, on unit vectors; its values are multiplied by 1000 (section 4 there)."""


class Distance(NamedTuple):
    """A distance with its 95 % interval, between `n` images and as many references."""

    value: float
    low: float
    high: float
    n: int


def fid(reference: Iterable[Tensor], rows: Iterable[Tensor]) -> Distance | None:
    """The Fréchet distance of the features' Gaussians, ≥ 0. It is biased upwards, the more so the fewer images."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    parts: list[Any] = []
    for real, batches in ((True, reference), (False, rows)):
        seen = 0
        for batch in batches:
            if not parts:
                given = _Given(batch.shape[1])
                parts = [FrechetInceptionDistance(feature=given) for _ in range(GROUPS)]
            groups = (torch.arange(len(batch)) + seen) % GROUPS
            for i, part in enumerate(parts):
                if len(chosen := batch[groups == i]):
                    part.update(chosen, real=real)
            seen += len(batch)
    counts = [sum(int(getattr(part, f"{side}_features_num_samples")) for part in parts) for side in ("real", "fake")]
    if min(counts, default=0) < LEAST["fid"]:
        return None
    without = [float(_added([p for j, p in enumerate(parts) if j != i])) for i in range(GROUPS)]
    return _distance(float(_added(parts)), _spread(without), min(counts))


def kid(reference: Iterable[Tensor], rows: Iterable[Tensor], *, paired: bool = False) -> Distance | None:
    """The unbiased squared MMD of the features under (x·y/d + 1)³; around 0 for sets of one kind.

    paired: row i of either set has the same prompt and noise. Then k(xᵢ, yᵢ) is left out as k(xᵢ, xᵢ) is, or sets that
    are alike pair by pair would be nearer than sets of one kind; the same images twice give 0.
    """
    from torchmetrics.image.kid import poly_kernel, poly_mmd

    def distance(x: Tensor, y: Tensor) -> float:
        found = poly_mmd(x, y)
        if paired:
            cross, m = poly_kernel(x, y), len(x)
            found += 2 * cross.sum() / m**2 - 2 * (cross.sum() - cross.trace()) / (m * (m - 1))
        return float(found)

    return _by_blocks(reference, rows, distance, LEAST["kid"])


def cmmd(reference: Iterable[Tensor], rows: Iterable[Tensor]) -> Distance | None:
    """1000 × the squared MMD of CLIP's unit vectors under exp(−‖x − y‖² / 2σ²), with the diagonals, as published."""
    return _by_blocks(reference, rows, _gaussian_mmd, LEAST["cmmd"])


class _Given(torch.nn.Module):
    """torchmetrics' feature module: the features are given, so they go through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features.double()


def _added(parts: list[Any]) -> Tensor:
    """The FID of some groups together: sums are all that it needs."""
    whole = copy.deepcopy(parts[0])
    for part in parts[1:]:
        whole.merge_state(part)
    found: Tensor = whole.compute()
    return found


def _gaussian_mmd(x: Tensor, y: Tensor) -> float:
    x, y = (torch.nn.functional.normalize(side, dim=1) for side in (x, y))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-(2 - 2 * a @ b.T) / (2 * SIGMA**2)).mean()

    return float(1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)))


def _by_blocks(
    reference: Iterable[Tensor], rows: Iterable[Tensor], distance: Callable[[Tensor, Tensor], float], least: int
) -> Distance | None:
    """The mean over blocks of as many rows of either, weighted by their size."""
    found: list[tuple[int, float, float]] = []
    for first, second in zip(_blocks(reference), _blocks(rows), strict=False):
        size = min(len(first), len(second))
        if size < least:
            continue
        x, y = first[:size].double(), second[:size].double()
        group = torch.arange(size) % GROUPS
        without = [distance(x[group != i], y[group != i]) for i in range(GROUPS)]
        found.append((size, distance(x, y), _spread(without)))
    if not found:
        return None
    n = sum(size for size, _, _ in found)
    value = sum(size * here for size, here, _ in found) / n
    return _distance(value, math.sqrt(sum((size * spread) ** 2 for size, _, spread in found)) / n, n)


def _blocks(batches: Iterable[Tensor]) -> Iterable[Tensor]:
    waiting: list[Tensor] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += len(batch)
        while count >= BLOCK:
            whole = torch.cat(waiting)
            yield whole[:BLOCK]
            waiting, count = [whole[BLOCK:]], count - BLOCK
    if count:
        yield torch.cat(waiting)


def _spread(without: list[float]) -> float:
    """The jackknife's standard error, from the values with one group left out each."""
    mean = sum(without) / len(without)
    return math.sqrt((len(without) - 1) / len(without) * sum((value - mean) ** 2 for value in without))


def _distance(value: float, spread: float, n: int) -> Distance:
    # Student's t with GROUPS − 1 = 4 degrees of freedom.
    return Distance(value, value - 2.776 * spread, value + 2.776 * spread, n)
