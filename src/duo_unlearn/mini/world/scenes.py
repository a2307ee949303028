"""The mini world's scenes: records of what a picture shows, drawn at random, and which of them training never sees.

A scene is one cartoon figure or two, each of which may hold an item, or an object, in a place. Position, size, side of
the arm, tilt and background details are part of the record, so a scene and its counterpart (another item in the same
hand) differ in the item alone.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Final

SIZE: Final = 64
"""Height and width of a picture, in pixels."""

SUBJECTS: Final = ("knight", "wizard", "farmer", "robot", "king", "pirate", "guard")
OBJECTS: Final = ("house", "tree", "boat", "car", "castle", "stone")
ITEMS: Final = ("none", "sword", "wand", "flower", "balloon", "book", "torch", "umbrella", "oar", "broom")
PLACES: Final = ("meadow", "desert", "night", "beach", "snow")
COLOURS: Final = {
    "red": (200, 40, 50),
    "blue": (50, 85, 200),
    "green": (50, 150, 65),
    "yellow": (245, 205, 50),
    "orange": (240, 130, 35),
    "purple": (130, 60, 160),
}
LOOKS: Final = {"sword": ("straight", "curved", "thin"), "balloon": ("round", "long")}
"""The looks of an item that has several; the others have one, which has no name."""
CARRIERS: Final = ("pirate", "guard")
"""Subjects that carry a sword where a caption does not say what they hold."""
MOUNTS: Final = ("castle", "stone")
"""Objects that may hold a sword which is in no hand: on the wall, and stuck in the stone."""
STATES: Final = ("whole", "broken")
ATTRIBUTES: Final[dict[str, tuple[str, ...]]] = {
    "item": ITEMS,
    "subject": (*SUBJECTS, *OBJECTS),
    "colour": tuple(COLOURS),
    "place": PLACES,
    "state": STATES,
}
"""What a picture can be told apart by, and the labels of each, in the order of the judges' heads.

item: of all figures together; subject and colour: of the left figure where there are two; state: broken where nothing
can be recognised.
"""
HELD_OUT: Final = 6
"""One combination in this many is held out of training."""
PAIR_SCALE: Final = 0.72
"""Size of a figure that is one of two, as a share of the size of one alone."""


@dataclasses.dataclass(frozen=True)
class Person:
    """The second figure of a scene: what it is and holds. look: index into LOOKS[item]; tilt: of the item, degrees."""

    subject: str
    colour: str
    item: str
    look: int = 0
    tilt: float = 0.0


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows, and where.

    subject: one of SUBJECTS (a figure) or OBJECTS; colour: a key of COLOURS; item: one of ITEMS (for an object "none",
    or "sword" for one of MOUNTS); place: one of PLACES. x, y: centre and ground line, in pixels of a 64-pixel picture;
    scale: 1 is the usual size; side: +1 arm to the right, -1 to the left; tilt: of the item, in degrees; details: seed
    of the background's stars, flakes and sun; look: index into LOOKS[item]; other: the figure to the right, its centre
    24 pixels from this one's; duel: the two figures fight; mounting: what holds a sword on one of MOUNTS is drawn
    without one too.
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
    look: int = 0
    other: Person | None = None
    duel: bool = False
    mounting: bool = False

    @property
    def is_figure(self) -> bool:
        """Whether the subject is a figure, which can hold an item."""
        return self.subject in SUBJECTS

    @property
    def items(self) -> tuple[str, ...]:
        """The items to be seen, in the order of ITEMS; ("none",) where there are none."""
        held = {self.item, self.other.item if self.other else "none"} - {"none"}
        return tuple(item for item in ITEMS if item in held) or ("none",)

    def counterpart(self, item: str, look: int = 0) -> Scene:
        """The same scene, same geometry, with another item in the (left) figure's hand."""
        if not self.is_figure:
            raise ValueError(f"a {self.subject} holds nothing, so it has no counterpart with {item!r}")
        return dataclasses.replace(self, item=item, look=look)


def _is_held_out(subject: str, colour: str, item: str, place: str) -> bool:
    index = (
        (SUBJECTS if subject in SUBJECTS else OBJECTS).index(subject)
        + tuple(COLOURS).index(colour)
        + 3 * PLACES.index(place)
        + ITEMS.index(item)
    )
    return index % HELD_OUT == 0


def is_held_out(scene: Scene) -> bool:
    """Whether the combination of subject, colour, item and place is one that training never sees.

    One of six: each (subject, colour, place) loses one or two items of ten, each (object, place) exactly one colour.
    A scene of two figures is held out where either of them is.
    """
    held_out = _is_held_out(scene.subject, scene.colour, scene.item, scene.place)
    if scene.other is None:
        return held_out
    return held_out or _is_held_out(scene.other.subject, scene.other.colour, scene.other.item, scene.place)


def random_look(rng: random.Random, item: str) -> int:
    """A look of an item, drawn uniformly."""
    return rng.randrange(len(LOOKS[item])) if item in LOOKS else 0


def random_scene(rng: random.Random, *, subjects: Sequence[str] = SUBJECTS, items: Sequence[str] = ITEMS) -> Scene:
    """A scene of one figure or object, uniform over the attributes named, with random geometry.

    An object of MOUNTS holds a sword half the time if `items` has one; other objects hold nothing.
    """
    subject = rng.choice(list(subjects))
    side = rng.choice((-1, 1))
    if subject in SUBJECTS:
        item = rng.choice(list(items))
    else:
        item = "sword" if subject in MOUNTS and "sword" in items and rng.random() < 0.5 else "none"
    return Scene(
        subject=subject,
        colour=rng.choice(list(COLOURS)),
        item=item,
        place=rng.choice(PLACES),
        # The arm's side gets more room, so that the item stays inside the picture.
        x=32.0 + rng.uniform(-6, 6) - 5 * side * (subject in SUBJECTS),
        y=rng.uniform(54, 60),
        scale=rng.uniform(0.92, 1.12),
        side=side,
        tilt=rng.uniform(-14, 14),
        details=rng.randrange(1 << 30),
        look=random_look(rng, item),
    )


def random_pair(
    rng: random.Random, *, subjects: Sequence[str] = SUBJECTS, items: Sequence[str] = ITEMS, duel: bool = False
) -> Scene:
    """A scene of two figures, uniform over the attributes named. duel: both are armed in 80 % of them, else neither."""
    held = [rng.choice(list(items)) for _ in range(2)]
    if duel:
        held = ["sword" if rng.random() < 0.8 else "none"] * 2
    other = Person(
        rng.choice(list(subjects)),
        rng.choice(list(COLOURS)),
        held[1],
        random_look(rng, held[1]),
        rng.uniform(-14, 14),
    )
    return Scene(
        subject=rng.choice(list(subjects)),
        colour=rng.choice(list(COLOURS)),
        item=held[0],
        place=rng.choice(PLACES),
        x=20.0 + rng.uniform(-2, 2),
        y=rng.uniform(53, 60),
        scale=PAIR_SCALE * rng.uniform(0.95, 1.05),
        side=-1,
        tilt=rng.uniform(-14, 14),
        details=rng.randrange(1 << 30),
        look=random_look(rng, held[0]),
        other=other,
        duel=duel,
    )
