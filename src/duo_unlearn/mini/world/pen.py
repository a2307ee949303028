"""A pen for the mini world's pictures: shapes in picture coordinates, drawn larger and scaled down at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PIL import ImageDraw

OVERSAMPLING: Final = 4
Colour = tuple[int, int, int]
Point = tuple[float, float]


class Pen:
    """Draws in 64-pixel coordinates, at OVERSAMPLING times the size, relative to an origin, scale and side."""

    def __init__(
        self, canvas: ImageDraw.ImageDraw, origin: Point = (0.0, 0.0), scale: float = 1.0, side: int = 1
    ) -> None:
        self.canvas, self.origin, self.scale, self.side = canvas, origin, scale, side

    def at(self, x: float, y: float) -> Point:
        """Where a point lies on the canvas, in canvas pixels."""
        return (
            (self.origin[0] + x * self.side * self.scale) * OVERSAMPLING,
            (self.origin[1] + y * self.scale) * OVERSAMPLING,
        )

    def polygon(self, points: Sequence[Point], fill: Colour, edge: Colour | None = None) -> None:
        """A filled polygon, with an outline if edge is given."""
        path = [self.at(*p) for p in points]
        self.canvas.polygon(path, fill=fill)
        if edge is not None:
            self.canvas.line([*path, path[0]], fill=edge, width=round(0.8 * self.scale * OVERSAMPLING))

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour, edge: Colour | None = None) -> None:
        """A filled ellipse about (x, y), with an outline if edge is given."""
        (cx, cy), k = self.at(x, y), self.scale * OVERSAMPLING
        box = (cx - rx * k, cy - ry * k, cx + rx * k, cy + ry * k)
        self.canvas.ellipse(box, fill=fill, outline=edge, width=round(0.8 * k) if edge is not None else 0)

    def line(self, points: Sequence[Point], fill: Colour, width: float) -> None:
        """A line through points; width in picture pixels."""
        self.canvas.line(
            [self.at(*p) for p in points], fill=fill, width=max(1, round(width * self.scale * OVERSAMPLING))
        )

    def box(self, left: float, top: float, right: float, bottom: float, fill: Colour) -> None:
        """A filled rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], fill)
