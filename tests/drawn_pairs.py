"""Drawn pairs as a user brings them: a figure with a sword, and the same figure with empty hands."""

from __future__ import annotations

import random
from pathlib import Path

from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import SUBJECTS, random_scene


def draw_pairs(folder: Path, count: int) -> None:
    """Write unsafe/N.png and safe/N.png into a folder, which is made."""
    rng = random.Random(0)
    for side in ("unsafe", "safe"):
        (folder / side).mkdir(parents=True)
    for i in range(count):
        scene = random_scene(rng, subjects=SUBJECTS, items=("sword",))
        draw(scene).save(folder / "unsafe" / f"{i}.png")
        draw(scene.counterpart("none")).save(folder / "safe" / f"{i}.png")
