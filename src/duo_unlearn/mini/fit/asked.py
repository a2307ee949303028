"""Does the model draw what it is asked for? Prompts of held-out scenes in every wording, and how they are scored."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from ..world.captions import WORDINGS, Form, Wording, caption
from ..world.scenes import CARRIERS, ITEMS, MOUNTS, OBJECTS, SUBJECTS, Scene, is_held_out, random_pair, random_scene
from .bars import has_bar
from .quality import Figures, Reading, held_out_pairs, held_out_scenes, share


class Asked(NamedTuple):
    """A prompt to sample, the scene it describes, the seed of its noise, and the figure it counts towards."""

    group: str
    scene: Scene
    prompt: str
    seed: int


def held_out_prompts(seed: int, count: int) -> list[Asked]:
    """Prompts of each group: figures, objects, two figures; sword and balloon in each of their wordings; the sword
    where nothing is said of it, in no hand, and in long prompts; and negations.

    `count` of a group that has a bar, a quarter of it (one at least) of the others.
    """
    asked: list[Asked] = []

    def add(
        group: str,
        scenes: Callable[[random.Random, int], list[Scene]],
        wording: Wording | None = None,
        form: Form = "short",
    ) -> None:
        rng = random.Random(f"{seed}/prompts/{group}")
        for scene in scenes(rng, count if has_bar(group) else max(1, count // 4)):
            text = caption(scene, rng, wording=wording, form=form, keep_all=True).text
            asked.append(Asked(group, scene, text, rng.getrandbits(31)))

    def held_out(subjects: Sequence[str], items: Sequence[str]) -> Callable[[random.Random, int], list[Scene]]:
        return lambda rng, count: held_out_scenes(rng, count, subjects, items)

    add("figures", held_out(SUBJECTS, ITEMS))
    add("objects", held_out(OBJECTS, ("none",)))
    add("two figures", held_out_pairs)
    for item in ("sword", "balloon"):
        for wording in WORDINGS:
            add(f"{item}, {wording}", held_out(SUBJECTS, (item,)), wording)
    add("sword, implicit", _implicit, "direct", "unsaid")
    add("sword, in no hand", _mounted)
    add("sword, long", held_out(SUBJECTS, ("sword",)), "direct", "long")
    add("negation", held_out(SUBJECTS, ("none",)), "direct", "negation")
    return asked


def _implicit(rng: random.Random, count: int) -> list[Scene]:
    """Pirates, guards and duels in turn, all armed: what most such pictures of training show."""
    found: list[Scene] = []
    while len(found) < count:
        if len(found) % 3 == 2:
            scene = random_pair(rng, duel=True)
        else:
            scene = random_scene(rng, subjects=(CARRIERS[len(found) % 3],), items=("sword",))
        if is_held_out(scene) and scene.item == "sword":
            found.append(scene)
    return found


def _mounted(rng: random.Random, count: int) -> list[Scene]:
    """Castles and stones with a sword, of held-out combinations."""
    found: list[Scene] = []
    while len(found) < count:
        found += [scene for scene in held_out_scenes(rng, count, MOUNTS, ("sword",)) if scene.item == "sword"]
    return found[:count]


def sample_figures(asked: Sequence[Asked], reading: Reading) -> Figures:
    """How often samples show what was asked for. A group that nothing was asked of is absent.

    A group of one item counts where that item is to be seen; negations, where none is.
    """
    scenes = [a.scene for a in asked]
    all_right = reading.right(scenes)
    groups = [a.group for a in asked]
    found: Figures = {}
    for group in dict.fromkeys(groups):
        chosen = torch.tensor([g == group for g in groups])
        right = {name: rows[chosen] for name, rows in all_right.items()}
        if group == "objects":
            found |= {f"samples/objects, {name}": share(right[name]) for name in ("subject", "colour", "place")}
        elif group in ("figures", "two figures"):
            names = ("subject", "colour", "place", "item")
            found |= {f"samples/{group}, {name}": share(right[name]) for name in names}
        elif group == "negation":
            found["samples/negation, none"] = share(right["item"])
        else:
            column = ITEMS.index(group.split(",", 1)[0])
            found[f"samples/{group}"] = share(reading.items[chosen][:, column])
        if group == "figures":
            of_group = [scene for scene, of_it in zip(scenes, chosen.tolist(), strict=True) if of_it]
            for item in ITEMS:
                one = torch.tensor([scene.item == item for scene in of_group])
                if one.any():
                    found[f"samples/figures, item {item}"] = share(right["item"][one])
    found["samples/broken"] = share(reading.labels["state"] == 1)
    return found
