"""The sword with three prompt sets and two neighbours, for runs whose every stage a test waits for."""

from __future__ import annotations

from pathlib import Path

import yaml

from duo_unlearn.concepts.store import concept_path

ASKING = ("direct", "synonym", "indirect")
NEAR = ("wand", "flower")


def small_concept(folder: Path, kinds: int | None = None) -> str:
    """Write the concept file into a folder; gives its path. kinds: of pairs, the first ones; None: all."""
    content = yaml.safe_load(concept_path("sword").read_text())
    content["attacks"] = {name: content["attacks"][name] for name in ASKING}
    content["neighbours"] = {name: content["neighbours"][name] for name in NEAR}
    content["pairs"] = content["pairs"][:kinds]
    path = folder / "sword.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)
