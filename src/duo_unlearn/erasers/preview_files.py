"""The pictures of single steps that a training leaves: their files, and what was asked for. Torch is not imported."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..errors import DuoError
from ..storage.files import read_object

PROMPTS: Final = "prompts.json"


def preview_file(folder: Path, step: int) -> Path:
    """The pictures of a step, side by side in one file; step 0: the original's."""
    return folder / f"{step:05}.png"


def preview_steps(folder: Path) -> list[int]:
    """The steps whose pictures a folder holds, in order."""
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.png") if path.stem.isdigit())


def preview_prompts(folder: Path) -> list[str]:
    """What the pictures were asked for, from left to right; [] where that is not known."""
    try:
        return [str(text) for text in read_object(folder / PROMPTS)["prompts"]]
    except (DuoError, KeyError, TypeError):
        return []
