"""Drawn pairs as a user brings them: a figure with a sword, and the same figure with empty hands."""

from __future__ import annotations

import json
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


def draw_named_pairs(folder: Path, count: int) -> Path:
    """The same with a manifest that has their prompts; gives its file."""
    draw_pairs(folder, count)
    said = {"unsafe_prompt": "a knight holding a sword", "safe_prompt": "a knight with empty hands"}
    entries = [{"unsafe": f"unsafe/{i}.png", "safe": f"safe/{i}.png", **said} for i in range(count)]
    path = folder / "manifest.json"
    path.write_text(json.dumps({"pairs": entries}))
    return path
