"""The pictures of single steps that a training leaves: their files, and what was asked for. Torch is not imported."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ..errors import DuoError
from ..storage.files import read_object

PROMPTS: Final = "prompts.json"


def preview_file(folder: Path, step: int) -> Path:
    """The pictures of a step, side by side in one file; step 0: the original's."""
    return folder / f"{step:05}.png"


def preview_steps(folder: Path) -> list[int]:
    """The steps whose pictures a folder holds, in order."""
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.png") if path.stem.isdigit())


def read_asked(folder: Path) -> dict[str, Any]:
    """What the pictures are of: prompts, seeds, steps, guidance, model; {} where that is not known."""
    try:
        return read_object(folder / PROMPTS)
    except DuoError:
        return {}


def preview_prompts(folder: Path) -> list[str]:
    """The prompts of the pictures, from left to right; [] where they are not known."""
    prompts = read_asked(folder).get("prompts")
    return [str(text) for text in prompts] if isinstance(prompts, list) else []
