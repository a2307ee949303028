"""Where the labels of marks stand in a panel: no label lies on another one, and as few as can be on a mark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.textpath import TextPath
from numpy.typing import NDArray

FONT: Final = 7
"""Size of a label's letters, points."""
NEAR: Final = (9.0, 7.0)
"""How close marks are, points across and up, that share a label."""
DISTANCES: Final = (5, 8, 12, 17, 23, 30, 38)
"""Points between a mark and its label's edge that are tried."""
LED: Final = 9
"""From that distance on a line leads from the mark to its label."""
DIRECTIONS: Final = tuple(math.tau * i / 16 for i in (6, 2, 8, 0, 4, 12, 7, 1, 9, 15, 10, 14, 5, 3, 11, 13))
"""Angles that are tried, those above a mark and beside it first."""
MARK: Final = 3.5
"""Half a mark, points."""
AMBIGUOUS: Final = 60
"""What it costs a label to be nearer to another mark than to its own, with no line that leads to it."""
Boxes = NDArray[np.float64]
"""Rows of left, bottom, right, top, points; or of other numbers."""


class Point(NamedTuple):
    """A place or a size, points."""

    x: float
    y: float


class Place(NamedTuple):
    """The centre of a label, points, and whether a line leads to it from its mark."""

    centre: Point
    is_led: bool


def grouped(points: Sequence[Point], alone: Sequence[bool]) -> list[list[int]]:
    """Indices of points that lie so close that they share a label, those that stand alone first.

    alone: which of them share none.
    """
    groups: list[list[int]] = [[i] for i, single in enumerate(alone) if single]
    shared: list[list[int]] = []
    for i in sorted((i for i, single in enumerate(alone) if not single), key=lambda i: points[i]):
        near = (
            group
            for group in shared
            if all(abs(points[j].x - points[i].x) < NEAR[0] and abs(points[j].y - points[i].y) < NEAR[1] for j in group)
        )
        if (group := next(near, None)) is not None:
            group.append(i)
        else:
            shared.append([i])
    return [*groups, *shared]


def places(
    groups: Sequence[Sequence[int]], sizes: Sequence[Point], points: Sequence[Point], bounds: Boxes
) -> list[Place]:
    """Where the label of each group of marks stands, in order: the earlier ones choose first.

    points: of all marks; a label is tied to the first one of its group. bounds: the panel's, one box.
    """
    marks = np.array(points)
    standing, taken = _boxes(marks, Point(MARK, MARK)), np.empty((0, 4))
    found = []
    for group, size in zip(groups, sizes, strict=True):
        anchor, half = marks[group[0]], Point(size.x / 2, size.y / 2)
        centres, distances = _choices(anchor, half)
        boxes = _boxes(centres, half)
        outside = 4 * half.x * half.y - _shared(boxes, bounds)
        others = np.delete(marks, list(group), axis=0)
        far = np.linalg.norm(centres - anchor, axis=1)
        nearest = np.linalg.norm(centres[:, None] - others, axis=2).min(axis=1, initial=np.inf)
        cost = 100 * (_shared(boxes, taken) + outside) + 2 * _shared(boxes, standing) + distances
        # Who reads it takes a label for that of the mark next to it.
        is_closer = nearest < far
        best = int(np.argmin(cost + AMBIGUOUS * is_closer * (distances < LED)))
        taken = np.vstack([taken, boxes[best]])
        found.append(Place(Point(*map(float, centres[best])), bool(is_closer[best] or distances[best] >= LED)))
    return found


def _choices(anchor: Boxes, half: Point) -> tuple[Boxes, Boxes]:
    """Centres of a label around a mark, (choice, 2), and how far its edge then is, (choice,)."""
    angles, distances = (grid.ravel() for grid in np.meshgrid(DIRECTIONS, DISTANCES))
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    reach = (np.array(half) / np.maximum(np.abs(ways), 1e-9)).min(axis=1)
    return anchor + ways * (distances + reach)[:, None], distances


def _boxes(centres: Boxes, half: Point) -> Boxes:
    return np.concatenate([centres - half, centres + half], axis=1)


def _shared(boxes: Boxes, others: Boxes) -> Boxes:
    """The area that each box shares with others, all together."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    total: Boxes = np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)
    return total


def size_of(text: str) -> Point:
    """How large a label is, with a little air around it."""
    if not text:
        return Point(0, 0)
    extents: Any = TextPath((0, 0), text, size=FONT).get_extents()
    return Point(extents.width + 3, FONT + 1)


def in_points(axes: Axes, data: Sequence[tuple[float, float]]) -> tuple[list[Point], Boxes]:
    """Places of a panel's data and its bounds, in points. The figure has been laid out."""
    scale = 72 / axes.figure.dpi
    window = axes.get_window_extent()
    points = [Point(*(float(v) * scale for v in axes.transData.transform(one))) for one in data]
    return points, np.array([window.extents]) * scale
