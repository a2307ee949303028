"""What a figure of the mini world may hold, and how each is drawn; a sword also where no hand holds it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from .pen import Colour, Pen, Point

_INK: Final = (40, 36, 50)
_STEEL: Final = (196, 208, 222)
_STEEL_EDGE: Final = (92, 106, 128)
_WOOD: Final = (120, 74, 40)
_BRASS: Final = (170, 120, 30)
Place = Callable[[float, float], Point]
"""Coordinates along an item: (u across, v along) → a point of the pen."""


def _turned(hand: Point, tilt: float) -> Place:
    angle = math.radians(tilt)
    return lambda u, v: (
        hand[0] + u * math.cos(angle) + v * math.sin(angle),
        hand[1] + u * math.sin(angle) - v * math.cos(angle),
    )


def _sword(pen: Pen, at: Place, look: int) -> None:
    if look == 0:  # straight
        pen.polygon([at(-2, 3), at(-2, 23), at(0, 27), at(2, 23), at(2, 3)], _STEEL, _STEEL_EDGE)
        pen.polygon([at(-5, 2), at(5, 2), at(5, 4.2), at(-5, 4.2)], _BRASS)
    elif look == 1:  # curved, wider towards the tip
        back = [at(-1.6 - 5.5 * (v / 24) ** 2, v) for v in (3, 9, 15, 20)]
        edge = [at(1.8 + 0.8 * (v / 20) - 5.0 * (v / 24) ** 2, v) for v in (22, 16, 10, 3)]
        pen.polygon([*back, at(-7.6, 25.5), *edge], _STEEL, _STEEL_EDGE)
        pen.line([at(-3.6, 2.6), at(3.6, 2.6), at(3.2, -3.4), at(0, -4.2)], _BRASS, 1.8)
    else:  # thin, with a round guard
        pen.line([at(0, 3), at(0, 28)], _STEEL_EDGE, 2.2)
        pen.line([at(0, 3), at(0, 27.4)], _STEEL, 1.2)
        x, y = at(0, 3)
        pen.ellipse(x, y, 3.4, 2.3, _BRASS)
    pen.line([at(0, 2), at(0, -4)], (110, 64, 30), 2.6)


def _wand(pen: Pen, at: Place, _look: int) -> None:
    pen.line([at(0, -3), at(0, 17)], _WOOD, 1.8)
    points = []
    for k in range(10):
        radius = 4.2 if k % 2 == 0 else 1.8
        points.append(at(radius * math.sin(k * math.pi / 5), 17 + radius * math.cos(k * math.pi / 5)))
    pen.polygon(points, (255, 226, 60))


def _flower(pen: Pen, at: Place, _look: int) -> None:
    pen.line([at(0, -3), at(0, 11)], (40, 120, 50), 2)
    for k in range(6):
        x, y = at(4.2 * math.sin(k * math.pi / 3), 13 + 4.2 * math.cos(k * math.pi / 3))
        pen.ellipse(x, y, 2.9, 2.9, (255, 140, 190))
    pen.ellipse(*at(0, 13), 2.6, 2.6, (255, 220, 70))


def _balloon(pen: Pen, at: Place, look: int) -> None:
    if look == 0:  # round
        pen.line([at(0, -1), at(0, 14)], _INK, 1)
        pen.ellipse(*at(0, 20), 6.6, 8, (226, 40, 74), (130, 20, 50))
        pen.ellipse(*at(-2, 23), 1.4, 2.2, (255, 190, 200))
        return
    pen.line([at(0, -1), at(0, 9)], _INK, 1)
    pen.polygon([at(-2, 9), at(2, 9), at(0, 12)], (20, 120, 120))
    pen.polygon([at(-3.6, 12), at(3.6, 12), at(3.6, 25), at(-3.6, 25)], (40, 190, 180))
    pen.ellipse(*at(0, 12), 3.6, 2.6, (40, 190, 180))
    pen.ellipse(*at(0, 25), 3.6, 3, (40, 190, 180))
    pen.line([at(-1.4, 14), at(-1.4, 24)], (190, 245, 240), 1.2)


def _torch(pen: Pen, at: Place, _look: int) -> None:
    pen.polygon([at(-1.2, -4), at(1.2, -4), at(2.2, 13), at(-2.2, 13)], _WOOD)
    pen.polygon([at(-3.6, 13), at(3.6, 13), at(3, 18), at(0.4, 25), at(-2.4, 20)], (240, 110, 30))
    pen.polygon([at(-1.8, 13.6), at(1.8, 13.6), at(0.4, 20)], (255, 225, 90))


def _umbrella(pen: Pen, at: Place, _look: int) -> None:
    """Closed: a slim dark cone on a stick, its crook in the hand."""
    pen.line([at(0, -1), at(0, 26)], _INK, 1.2)
    pen.polygon([at(-3.4, 6), at(3.4, 6), at(0.5, 24), at(-0.5, 24)], (112, 62, 176), (44, 30, 84))
    pen.line([at(0, 8), at(0, 22)], (196, 168, 232), 0.9)
    pen.line([at(0, -1), at(0, -4), at(2.6, -5), at(3.8, -3)], _INK, 1.3)


def _oar(pen: Pen, at: Place, _look: int) -> None:
    pen.line([at(0, -6), at(0, 17)], (206, 160, 96), 2.2)
    pen.polygon([at(-1.6, 16), at(-3.6, 20), at(-3.2, 27), at(3.2, 27), at(3.6, 20), at(1.6, 16)],
                (206, 160, 96), (140, 98, 50))  # fmt: skip


def _broom(pen: Pen, at: Place, _look: int) -> None:
    pen.line([at(0, -6), at(0, 16)], _WOOD, 1.9)
    pen.polygon([at(-1.6, 16), at(-5, 26), at(5, 26), at(1.6, 16)], (222, 190, 90), (160, 124, 40))
    pen.line([at(-1.9, 17.6), at(1.9, 17.6)], (170, 50, 40), 1.4)


def _book(pen: Pen, at: Place, _look: int) -> None:
    x, y = at(0, 0)
    pen.box(x - 2, y - 7, x + 11, y + 4, (120, 60, 30))
    pen.box(x - 0.8, y - 5.8, x + 4, y + 2.8, (252, 250, 240))
    pen.box(x + 5, y - 5.8, x + 9.8, y + 2.8, (252, 250, 240))
    for row in (-4, -1.5, 1):
        pen.line([(x + 0.4, y + row), (x + 3, y + row)], (120, 120, 120), 0.7)
        pen.line([(x + 6, y + row), (x + 8.8, y + row)], (120, 120, 120), 0.7)


_ITEMS: Final[dict[str, Callable[[Pen, Place, int], None]]] = {
    "sword": _sword,
    "wand": _wand,
    "flower": _flower,
    "balloon": _balloon,
    "book": _book,
    "torch": _torch,
    "umbrella": _umbrella,
    "oar": _oar,
    "broom": _broom,
}


def draw_item(pen: Pen, item: str, look: int, hand: Point, tilt: float) -> None:
    """An item in a hand, about 27 pixels long; "none" draws nothing."""
    if item != "none":
        _ITEMS[item](pen, _turned(hand, tilt), look)


def draw_mounted(pen: Pen, mount: str, item: str, look: int, tilt: float) -> None:
    """An item that no hand holds: on a plate above a castle's gate, or in a stone, its point down, behind a band.

    "none" draws the plate or the band alone.
    """
    if mount == "castle":
        _plate(pen, (0, -15))
        draw_item(pen, item, look, (-11.5, -15), 90 + 0.4 * tilt)
    else:
        draw_item(pen, item, look, (0, -31), 180 + 0.6 * tilt)
        pen.polygon([(-6, -10), (-6, -13.5), (6, -13.5), (7, -10)], (92, 90, 96))


def _plate(pen: Pen, centre: Point) -> None:
    colour: Colour = (228, 222, 208)
    pen.box(centre[0] - 16, centre[1] - 4.5, centre[0] + 17, centre[1] + 4.5, colour)
