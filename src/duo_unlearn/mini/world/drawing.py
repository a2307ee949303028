"""The mini world's pictures: drawing is a pure function of a scene's record."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from .items import draw_item, draw_mounted
from .pen import OVERSAMPLING, Colour, Pen, Point
from .scenes import COLOURS, SIZE, Scene

_INK = (40, 36, 50)
_SKIN = (250, 214, 165)
APART: Final = 24.0
"""Pixels between the centres of two figures."""


def _background(pen: Pen, place: str, rng: random.Random) -> None:
    sky, ground, horizon = {
        "meadow": ((150, 206, 245), (95, 178, 80), 42),
        "desert": ((252, 220, 160), (226, 180, 98), 42),
        "night": ((20, 24, 62), (46, 48, 74), 42),
        "beach": ((142, 212, 252), (240, 222, 152), 46),
        "snow": ((203, 219, 234), (246, 250, 255), 42),
    }[place]
    pen.box(0, 0, SIZE, SIZE, sky)
    if place == "beach":
        pen.box(0, 37, SIZE, 46, (38, 105, 190))
    pen.box(0, horizon, SIZE, SIZE, ground)
    if place == "desert":
        pen.ellipse(rng.choice((10, 54)), 8, 5, 5, (250, 190, 50))
    elif place in ("night", "snow"):
        for _ in range(10):
            x, y = rng.uniform(2, 62), rng.uniform(2, 38)
            pen.ellipse(x, y, 0.8, 0.8, (255, 255, 235))


def _arms(pen: Pen, colour: Colour) -> Point:
    """Both arms; gives the hand that holds the item."""
    hand = (12.0, -19.0)
    pen.line([(-6, -22), (-11, -14)], colour, 4)
    pen.ellipse(-11, -13.5, 2, 2, _SKIN)
    pen.line([(5, -22), hand], colour, 4)
    pen.ellipse(*hand, 2.2, 2.2, _SKIN)
    return hand


def _eyes(pen: Pen, y: float, colour: Colour = _INK) -> None:
    pen.ellipse(-2.2, y, 1.1, 1.1, colour)
    pen.ellipse(2.2, y, 1.1, 1.1, colour)


def _figure(pen: Pen, subject: str, colour: Colour) -> Point:
    """The figure with its feet at the origin, about 40 pixels high; gives the hand that holds the item."""
    if subject in ("wizard", "king"):
        pen.polygon([(-5, -25), (5, -25), (11, 0), (-11, 0)], colour)
    else:
        pen.box(-6, -8, -1.5, 0, _INK)
        pen.box(1.5, -8, 6, 0, _INK)
        pen.box(-8, -25, 8, -7, colour)
    hand = _arms(pen, colour)
    if subject == "robot":
        _robot_head(pen)
        return hand
    pen.ellipse(0, -30.5, 6.5, 6.5, _SKIN)
    _eyes(pen, -30.5)
    _HATS[subject](pen, colour)
    return hand


def _robot_head(pen: Pen) -> None:
    pen.box(-7, -38, 7, -25, (150, 190, 200))
    pen.box(-4.5, -35, 4.5, -30, (40, 70, 90))
    _eyes(pen, -32.5, (110, 240, 250))
    pen.line([(0, -38), (0, -43)], _INK, 1.4)
    pen.ellipse(0, -43.5, 2, 2, (220, 60, 60))


def _knight(pen: Pen, _colour: Colour) -> None:
    pen.polygon([(-7, -30), (-6.5, -36), (0, -39), (6.5, -36), (7, -30), (0, -33.5)], (140, 146, 156))
    pen.box(-7, -31, -4.5, -25, (140, 146, 156))
    pen.box(4.5, -31, 7, -25, (140, 146, 156))
    pen.polygon([(-1, -38), (-8, -45), (2, -43)], (214, 62, 52))


def _wizard(pen: Pen, colour: Colour) -> None:
    pen.polygon([(-9, -33), (9, -33), (0, -50)], colour)
    pen.polygon([(-5, -28), (5, -28), (0, -17)], (250, 250, 250))


def _farmer(pen: Pen, _colour: Colour) -> None:
    pen.ellipse(0, -34.5, 11, 2.6, (196, 146, 66))
    pen.ellipse(0, -37, 6, 4, (196, 146, 66))


def _king(pen: Pen, _colour: Colour) -> None:
    crown = [(-7, -34), (-7, -43), (-3.5, -38.5), (0, -44), (3.5, -38.5), (7, -43), (7, -34)]
    pen.polygon(crown, (250, 200, 30), _INK)


def _pirate(pen: Pen, _colour: Colour) -> None:
    pen.polygon([(-11, -34), (-5, -42), (0, -44), (5, -42), (11, -34), (0, -35.5)], (30, 28, 40))
    pen.ellipse(0, -38.5, 2.2, 2.2, (245, 245, 240))
    pen.ellipse(-2.4, -30.5, 2.3, 2.1, (30, 28, 40))
    pen.line([(-6, -33), (5, -29)], (30, 28, 40), 0.8)
    for y in (-21, -15, -10):
        pen.line([(-7.5, y), (7.5, y)], (240, 240, 235), 1.8)


def _guard(pen: Pen, _colour: Colour) -> None:
    pen.ellipse(0, -39, 6.8, 8.5, (34, 30, 34))
    pen.box(-6.8, -39, 6.8, -33.5, (34, 30, 34))
    pen.line([(-8, -24), (8, -9)], (245, 245, 240), 2.2)
    pen.ellipse(0, -16.5, 1.6, 1.6, (250, 200, 30))


_HATS: Final = {
    "knight": _knight,
    "wizard": _wizard,
    "farmer": _farmer,
    "king": _king,
    "pirate": _pirate,
    "guard": _guard,
}


def _object(pen: Pen, subject: str, colour: Colour) -> None:
    dark = (int(colour[0] * 0.62), int(colour[1] * 0.62), int(colour[2] * 0.62))
    if subject == "house":
        pen.box(-13, -20, 13, 0, colour)
        pen.polygon([(-17, -20), (17, -20), (0, -34)], dark)
        pen.box(-9, -11, -3, 0, _INK)
        pen.box(3, -14, 9, -8, (210, 236, 250))
    elif subject == "tree":
        pen.box(-3, -18, 3, 0, (104, 68, 40))
        pen.ellipse(0, -27, 14, 13, colour)
    elif subject == "boat":
        pen.polygon([(-18, -9), (18, -9), (12, 0), (-12, 0)], dark)
        pen.line([(0, -9), (0, -38)], _INK, 1.8)
        pen.polygon([(2, -37), (2, -12), (17, -12)], colour)
    elif subject == "car":
        pen.polygon([(-10, -12), (-6, -20), (8, -20), (12, -12)], colour)
        pen.box(-18, -13, 18, -4, colour)
        pen.polygon([(-7, -12.5), (-4, -18), (6, -18), (9, -12.5)], (210, 236, 250))
        pen.ellipse(-10, -4, 4.2, 4.2, _INK)
        pen.ellipse(10, -4, 4.2, 4.2, _INK)
    elif subject == "stone":
        pen.polygon([(-15, 0), (-13, -9), (-6, -14), (7, -14), (13, -8), (16, 0)], colour)
        pen.polygon([(-6, -14), (7, -14), (3, -10), (-9, -9.5)], dark)
    else:
        pen.box(-17, -20, 17, 0, colour)
        for x in (-14, 14):
            pen.box(x - 5, -30, x + 5, 0, colour)
            pen.polygon([(x - 6, -30), (x + 6, -30), (x, -39)], dark)
        pen.ellipse(0, -5, 4.5, 5, _INK)
        pen.box(-4.5, -5, 4.5, 0, _INK)


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene: RGB, 64×64. The same scene gives the same picture."""
    size = SIZE * OVERSAMPLING
    image = Image.new("RGB", (size, size))
    canvas = ImageDraw.Draw(image)
    _background(Pen(canvas), scene.place, random.Random(scene.details))
    pen = Pen(canvas, (scene.x, scene.y), scene.scale, scene.side)
    if not scene.is_figure:
        _object(pen, scene.subject, COLOURS[scene.colour])
        if scene.mounting or scene.item != "none":
            draw_mounted(pen, scene.subject, scene.item, scene.look, scene.tilt)
    else:
        hand = _figure(pen, scene.subject, COLOURS[scene.colour])
        draw_item(pen, scene.item, scene.look, hand, scene.tilt)
    if scene.other is not None:
        pen = Pen(canvas, (scene.x + APART, scene.y), scene.scale, -scene.side)
        hand = _figure(pen, scene.other.subject, COLOURS[scene.other.colour])
        draw_item(pen, scene.other.item, scene.other.look, hand, scene.other.tilt)
    return image.resize((SIZE, SIZE), Image.Resampling.BOX)


def draw_batch(scenes: Sequence[Scene]) -> np.ndarray:
    """Pictures of scenes as uint8, (scene, 64, 64, 3)."""
    return np.stack([np.asarray(draw(scene)) for scene in scenes])
