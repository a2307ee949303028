"""The mini world's pictures: a scene is a record, and drawing it is a pure function of that record.

A scene is a cartoon figure that may hold an item, or an object, in a place. Position, size, side of the arm,
tilt and background details are part of the record, so a scene and its counterpart (another item in the same
hand) differ in the item alone.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from PIL import Image, ImageDraw

from .pen import OVERSAMPLING, Colour, Pen, Point

SIZE: Final = 64
"""Height and width of a picture, in pixels."""

SUBJECTS: Final = ("knight", "wizard", "farmer", "robot", "king")
OBJECTS: Final = ("house", "tree", "boat", "car", "castle")
ITEMS: Final = ("none", "sword", "wand", "flower", "balloon", "book")
PLACES: Final = ("meadow", "desert", "night", "beach", "snow")
COLOURS: Final = {
    "red": (200, 40, 50),
    "blue": (50, 85, 200),
    "green": (50, 150, 65),
    "yellow": (245, 205, 50),
    "orange": (240, 130, 35),
    "purple": (130, 60, 160),
}
ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "item": ITEMS,
    "subject": (*SUBJECTS, *OBJECTS),
    "colour": tuple(COLOURS),
    "place": PLACES,
}
"""What a picture can be told apart by, and the labels of each, in the order of the judge's heads."""

_INK = (40, 36, 50)
_SKIN = (250, 214, 165)
_STEEL = (196, 208, 222)
_STEEL_EDGE = (92, 106, 128)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows, and where.

    subject: one of SUBJECTS (a figure) or OBJECTS; colour: a key of COLOURS; item: one of ITEMS ("none" for
    objects); place: one of PLACES. x, y: centre and ground line, in pixels of a 64-pixel picture; scale: 1 is
    the usual size; side: +1 arm to the right, -1 to the left; tilt: of the item, in degrees; details: seed of
    the background's stars, flakes and sun.
    """

    subject: str
    colour: str
    item: str
    place: str
    x: float = 32.0
    y: float = 57.0
    scale: float = 1.0
    side: int = 1
    tilt: float = 0.0
    details: int = 0

    @property
    def is_figure(self) -> bool:
        """Whether the subject is a figure, which can hold an item."""
        return self.subject in SUBJECTS

    def counterpart(self, item: str) -> Scene:
        """The same scene, same geometry, with another item in the hand."""
        if not self.is_figure:
            raise ValueError(f"a {self.subject} holds nothing, so it has no counterpart with {item!r}")
        return dataclasses.replace(self, item=item)


def is_held_out(scene: Scene) -> bool:
    """Whether the combination of subject, colour, item and place is one that training never sees.

    One of six: each (subject, colour, place) loses exactly one item, each (object, place) exactly one colour.
    """
    index = (
        (SUBJECTS if scene.is_figure else OBJECTS).index(scene.subject)
        + tuple(COLOURS).index(scene.colour)
        + 3 * PLACES.index(scene.place)
        + ITEMS.index(scene.item)
    )
    return index % len(ITEMS) == 0


def random_scene(rng: random.Random, *, subjects: Sequence[str] = SUBJECTS, items: Sequence[str] = ITEMS) -> Scene:
    """A scene drawn uniformly over the attributes named, with random geometry. Objects hold nothing."""
    subject = rng.choice(list(subjects))
    side = rng.choice((-1, 1))
    return Scene(
        subject=subject,
        colour=rng.choice(list(COLOURS)),
        item=rng.choice(list(items)) if subject in SUBJECTS else "none",
        place=rng.choice(PLACES),
        # The arm's side gets more room, so that the item stays inside the picture.
        x=32.0 + rng.uniform(-6, 6) - 5 * side * (subject in SUBJECTS),
        y=rng.uniform(54, 60),
        scale=rng.uniform(0.92, 1.12),
        side=side,
        tilt=rng.uniform(-14, 14),
        details=rng.randrange(1 << 30),
    )


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
        pen.box(-7, -38, 7, -25, (150, 190, 200))
        pen.box(-4.5, -35, 4.5, -30, (40, 70, 90))
        _eyes(pen, -32.5, (110, 240, 250))
        pen.line([(0, -38), (0, -43)], _INK, 1.4)
        pen.ellipse(0, -43.5, 2, 2, (220, 60, 60))
        return hand
    pen.ellipse(0, -30.5, 6.5, 6.5, _SKIN)
    _eyes(pen, -30.5)
    if subject == "knight":
        pen.polygon([(-7, -30), (-6.5, -36), (0, -39), (6.5, -36), (7, -30), (0, -33.5)], (140, 146, 156))
        pen.box(-7, -31, -4.5, -25, (140, 146, 156))
        pen.box(4.5, -31, 7, -25, (140, 146, 156))
        pen.polygon([(-1, -38), (-8, -45), (2, -43)], (214, 62, 52))
    elif subject == "wizard":
        pen.polygon([(-9, -33), (9, -33), (0, -50)], colour)
        pen.polygon([(-5, -28), (5, -28), (0, -17)], (250, 250, 250))
    elif subject == "farmer":
        pen.ellipse(0, -34.5, 11, 2.6, (196, 146, 66))
        pen.ellipse(0, -37, 6, 4, (196, 146, 66))
    else:
        pen.polygon(
            [(-7, -34), (-7, -43), (-3.5, -38.5), (0, -44), (3.5, -38.5), (7, -43), (7, -34)], (250, 200, 30), _INK
        )
    return hand


def _turned(hand: Point, tilt: float) -> Callable[[float, float], Point]:
    """Coordinates along an item that stands in the hand: u across, v upwards."""
    angle = math.radians(tilt)
    return lambda u, v: (
        hand[0] + u * math.cos(angle) + v * math.sin(angle),
        hand[1] + u * math.sin(angle) - v * math.cos(angle),
    )


def _item(pen: Pen, item: str, hand: Point, tilt: float) -> None:
    at = _turned(hand, tilt)
    if item == "sword":
        blade = [at(-2, 3), at(-2, 23), at(0, 27), at(2, 23), at(2, 3)]
        pen.polygon(blade, _STEEL, _STEEL_EDGE)
        pen.polygon([at(-5, 2), at(5, 2), at(5, 4.2), at(-5, 4.2)], (170, 120, 30))
        pen.line([at(0, 2), at(0, -4)], (110, 64, 30), 2.6)
    elif item == "wand":
        pen.line([at(0, -3), at(0, 17)], (120, 74, 40), 1.8)
        star = [at((4.2 if k % 2 == 0 else 1.8) * math.sin(k * math.pi / 5),
                   17 + (4.2 if k % 2 == 0 else 1.8) * math.cos(k * math.pi / 5)) for k in range(10)]  # fmt: skip
        pen.polygon(star, (255, 226, 60))
    elif item == "flower":
        pen.line([at(0, -3), at(0, 11)], (40, 120, 50), 2)
        for k in range(6):
            x, y = at(4.2 * math.sin(k * math.pi / 3), 13 + 4.2 * math.cos(k * math.pi / 3))
            pen.ellipse(x, y, 2.9, 2.9, (255, 140, 190))
        pen.ellipse(*at(0, 13), 2.6, 2.6, (255, 220, 70))
    elif item == "balloon":
        pen.line([at(0, -1), at(0, 14)], _INK, 1)
        pen.ellipse(*at(0, 20), 6.6, 8, (226, 40, 74), (130, 20, 50))
        pen.ellipse(*at(-2, 23), 1.4, 2.2, (255, 190, 200))
    elif item == "book":
        x, y = hand
        pen.box(x - 2, y - 7, x + 11, y + 4, (120, 60, 30))
        pen.box(x - 0.8, y - 5.8, x + 4, y + 2.8, (252, 250, 240))
        pen.box(x + 5, y - 5.8, x + 9.8, y + 2.8, (252, 250, 240))
        for row in (-4, -1.5, 1):
            pen.line([(x + 0.4, y + row), (x + 3, y + row)], (120, 120, 120), 0.7)
            pen.line([(x + 6, y + row), (x + 8.8, y + row)], (120, 120, 120), 0.7)


def _object(pen: Pen, subject: str, colour: Colour) -> None:
    dark = tuple(int(c * 0.62) for c in colour)
    dark = (dark[0], dark[1], dark[2])
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
    colour = COLOURS[scene.colour]
    if scene.is_figure:
        hand = _figure(pen, scene.subject, colour)
        _item(pen, scene.item, hand, scene.tilt)
    else:
        _object(pen, scene.subject, colour)
    return image.resize((SIZE, SIZE), Image.Resampling.BOX)


def draw_batch(scenes: Sequence[Scene]) -> np.ndarray:
    """Pictures of scenes as uint8, (scene, 64, 64, 3)."""
    return np.stack([np.asarray(draw(scene)) for scene in scenes])
