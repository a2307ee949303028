"""FID, KID and CMMD between two sets of images, from features that come in batches and do not all stay in memory.

FID (Heusel et al. 2017) is torchmetrics', which needs sums alone. KID (Bińkowski et al. 2018) and CMMD (Jayasumana et
al. 2024) compare every row with every other, so they are the mean over blocks of at most BLOCK rows a side; with no
more images than that they are the whole. A block's kernel is summed STRIP rows at a time, by groups of rows, so a block
takes no more memory than its rows. Intervals: the jackknife over GROUPS groups of rows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import torch
from torch import Tensor

BLOCK: Final = 1000
STRIP: Final = 100
GROUPS: Final = 5
LEAST: Final = {"fid": 100, "kid": 20, "cmmd": 20}
"""With fewer images a side there is no number."""
SIGMA: Final = 10.0
"""The width of CMMD's kernel, on unit vectors; its values are multiplied by 1000 (section 4 there)."""


class Distance(NamedTuple):
    """A distance with its 95 % interval, between `n` images and references: as many, or for FID all that there are."""

    value: float
    low: float
    high: float
    n: int


class Distribution(Protocol):
    """A distance between two sets whose features come side by side, batch by batch."""

    def add(self, reference: Tensor | None, rows: Tensor | None) -> None:
        """The next features of either set, (image, feature); None from the end of that set on."""
        ...

    def result(self) -> Distance | None:
        """The distance so far; None with fewer than LEAST images a side."""
        ...


class Fid:
    """The Fréchet distance of the features' Gaussians, ≥ 0. It is biased upwards, the more so the fewer images."""

    def __init__(self) -> None:
        self.parts: list[Any] = []
        self.seen = [0, 0]

    def add(self, reference: Tensor | None, rows: Tensor | None) -> None:
        """Sums of each group's features."""
        for side, batch in enumerate((reference, rows)):
            if batch is None:
                continue
            groups = (torch.arange(len(batch)) + self.seen[side]) % GROUPS
            self.seen[side] += len(batch)
            for i, part in enumerate(self._parts(batch.shape[1])):
                if len(chosen := batch[groups == i]):
                    part.update(chosen, real=side == 0)

    def result(self) -> Distance | None:
        """The distance of the Gaussians that the sums give."""
        if min(self.seen) < LEAST["fid"]:
            return None
        without = [float(_added([p for j, p in enumerate(self.parts) if j != i])) for i in range(GROUPS)]
        return _distance(float(_added(self.parts)), _spread(without), min(self.seen))

    def _parts(self, width: int) -> list[Any]:
        from torchmetrics.image.fid import FrechetInceptionDistance

        if not self.parts:
            self.parts = [FrechetInceptionDistance(feature=_Given(width)) for _ in range(GROUPS)]
        return self.parts


class Kid:
    """The unbiased squared MMD of the features under (x·y/d + 1)³; around 0 for sets of one kind.

    paired: row i of either set has the same prompt and noise. Then k(xᵢ, yᵢ) is left out as k(xᵢ, xᵢ) is, or sets that
    are alike pair by pair would be nearer than sets of one kind; the same images twice give 0.
    """

    def __init__(self, *, paired: bool = False, block: int = BLOCK) -> None:
        self.paired, self.blocks = paired, _Blocks(poly_kernel, self._of, LEAST["kid"], block)
        self.add, self.result = self.blocks.add, self.blocks.result

    def _of(self, sums: _Sums) -> float:
        m = sums.rows
        within = sums.x + sums.y - sums.x_same - sums.y_same
        cross = (sums.cross - sums.cross_same) / (m * (m - 1)) if self.paired else sums.cross / m**2
        return within / (m * (m - 1)) - 2 * cross


class Cmmd:
    """1000 × the squared MMD of CLIP's unit vectors under exp(−‖x − y‖² / 2σ²), with the diagonals, as published."""

    def __init__(self, *, block: int = BLOCK) -> None:
        self.blocks = _Blocks(_gaussian_kernel, _gaussian_mmd, LEAST["cmmd"], block, unit=True)
        self.add, self.result = self.blocks.add, self.blocks.result


class _Given(torch.nn.Module):
    """torchmetrics' feature module: the features are given, so they go through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, features: Tensor) -> Tensor:
        return features.double()


def poly_kernel(x: Tensor, y: Tensor) -> Tensor:
    """KID's kernel of rows of d features: (x·y/d + 1)³."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _added(parts: list[Any]) -> Tensor:
    """The FID of some groups together: sums are all that it needs."""
    whole = copy.deepcopy(parts[0])
    for part in parts[1:]:
        whole.merge_state(part)
    found: Tensor = whole.compute()
    return found


def _gaussian_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Of unit vectors."""
    return torch.exp(-(2 - 2 * x @ y.T) / (2 * SIGMA**2))


def _gaussian_mmd(sums: _Sums) -> float:
    return 1000 * (sums.x + sums.y - 2 * sums.cross) / sums.rows**2


class _Sums(NamedTuple):
    """A kernel's sums over all pairs of rows of x, of y, and of one of each. *_same: over the pairs of one index."""

    rows: int
    x: float
    y: float
    cross: float
    x_same: float
    y_same: float
    cross_same: float


class _Blocks:
    """The mean of a distance over blocks of as many rows of either set, weighted by their size.

    distance: of a kernel's sums. unit: whether rows are made unit vectors first.
    """

    def __init__(
        self,
        kernel: Callable[[Tensor, Tensor], Tensor],
        distance: Callable[[_Sums], float],
        least: int,
        block: int,
        *,
        unit: bool = False,
    ) -> None:
        self.kernel, self.distance, self.least, self.block, self.unit = kernel, distance, least, block, unit
        self.waiting: tuple[list[Tensor], list[Tensor]] = ([], [])
        self.found: list[tuple[int, float, float]] = []

    def add(self, reference: Tensor | None, rows: Tensor | None) -> None:
        """The next rows; what one set has more than the other is left out."""
        if reference is None or rows is None:
            return
        for waiting, batch in zip(self.waiting, (reference, rows), strict=True):
            waiting.append(batch)
        while self._ready() >= self.block:
            self._measure(self.block)

    def result(self) -> Distance | None:
        """With the last block, which may be small. No more can be added after it."""
        if (size := self._ready()) >= self.least:
            self._measure(size)
        if not self.found:
            return None
        n = sum(size for size, _, _ in self.found)
        value = sum(size * here for size, here, _ in self.found) / n
        return _distance(value, math.sqrt(sum((size * spread) ** 2 for size, _, spread in self.found)) / n, n)

    def _ready(self) -> int:
        return min(sum(map(len, waiting)) for waiting in self.waiting)

    def _measure(self, size: int) -> None:
        sides = []
        for waiting in self.waiting:
            whole = torch.cat(waiting)
            sides.append(whole[:size].double())
            waiting[:] = [whole[size:].clone()]
        x, y = (torch.nn.functional.normalize(side, dim=1) if self.unit else side for side in sides)
        pairs = [self._by_group(*pair) for pair in ((x, x), (y, y), (x, y))]
        of_group = torch.bincount(torch.arange(size) % GROUPS, minlength=GROUPS)

        def over(kept: Tensor) -> float:
            sums = [float(whole[kept][:, kept].sum()) for whole, _ in pairs]
            same = [float(diagonal[kept].sum()) for _, diagonal in pairs]
            return self.distance(_Sums(int(of_group[kept].sum()), *sums, *same))

        every = torch.arange(GROUPS)
        without = [over(every[every != i]) for i in range(GROUPS)]
        self.found.append((size, over(every), _spread(without)))

    def _by_group(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The kernel's sums over the rows of each two groups, (group, group), and over pairs of one index, (group,)."""
        whole, diagonal = torch.zeros(GROUPS, GROUPS, dtype=x.dtype), torch.zeros(GROUPS, dtype=x.dtype)
        group = torch.arange(len(x)) % GROUPS
        for first in range(0, len(x), STRIP):
            rows = torch.arange(first, min(first + STRIP, len(x)))
            strip = self.kernel(x[rows], y)
            columns = torch.zeros(len(rows), GROUPS, dtype=x.dtype).index_add_(1, group, strip)
            whole.index_add_(0, group[rows], columns)
            diagonal.index_add_(0, group[rows], strip[torch.arange(len(rows)), rows])
        return whole, diagonal


def _spread(without: list[float]) -> float:
    """The jackknife's standard error, from the values with one group left out each."""
    mean = sum(without) / len(without)
    return math.sqrt((len(without) - 1) / len(without) * sum((value - mean) ** 2 for value in without))


def _distance(value: float, spread: float, n: int) -> Distance:
    # Student's t with GROUPS − 1 = 4 degrees of freedom.
    return Distance(value, value - 2.776 * spread, value + 2.776 * spread, n)
