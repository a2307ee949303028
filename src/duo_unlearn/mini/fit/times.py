"""How long the stages of `duo mini fit` took, from the work folder that they left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...storage.files import read_tensors
from ..model.judge_net import JUDGES


def stage_times(folder: Path) -> dict[str, dict[str, Any]]:
    """Each finished stage of a work folder: its seconds, over all processes that worked on it, and its machine."""
    found = {}
    for stage in ("clip", "vae", "unet", *JUDGES):
        if (path := folder / f"{stage}.safetensors").exists():
            facts = read_tensors(path)[1]
            found[stage] = {"seconds": round(float(facts["seconds"])), "machine": facts["machine"]}
    return found
