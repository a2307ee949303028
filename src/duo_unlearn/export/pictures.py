"""The pictures of a card: the original above, the edited model below, as the run sampled them; nothing is sampled."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from ..records import Attempt
from ..runs.attempts import GroupRecord, attempts_of
from ..runs.folder import Run
from ..settings.sampling import read_current
from ..storage.files import sha256_of
from ..storage.pictures import blurred, read_image, save_png, sheet
from ..system import System

PICTURES: Final = "pictures.png"
SHOWN: Final = {"attack": 3, "keep": 2}
"""How many pictures of plain prompts of each kind."""


def write_pictures(run: Run, systems: Sequence[System], folder: Path, *, blur: bool) -> Path | None:
    """Write a sheet of pictures into a folder; None where the run has not all of them.

    systems: the original and the edited one. blur: so that nothing can be recognised.
    """
    rows: list[list[Image.Image]] = []
    for system in systems:
        images = [_image(run, attempt) for attempt in _attempts(run, system)]
        if not images or None in images:
            return None
        rows.append([blurred(image) if blur else image for image in images if image is not None])
    if len({len(row) for row in rows}) != 1:
        return None
    save_png(sheet(rows, gap=4, background="white"), folder / PICTURES)
    return folder / PICTURES


def _attempts(run: Run, system: System) -> list[Attempt]:
    """The first attempts of the first sets of plain prompts that ask for the concept, and that must go on working."""
    found: list[Attempt] = []
    groups = [record for record in read_current(run) if _is_plain(record, system)]
    for kind, count in SHOWN.items():
        first = next((record for record in groups if record.kind == kind), None)
        found += attempts_of(run, first)[:count] if first is not None else []
    return found


def _is_plain(record: GroupRecord, system: System) -> bool:
    is_its = (record.group.system, record.sha256) == (system.name, system.sha256)
    return is_its and record.group.preset is None and record.reason is None


def _image(run: Run, attempt: Attempt) -> Image.Image | None:
    if attempt.file is None:
        return None
    path = run.folder / attempt.file
    return read_image(path) if path.is_file() and sha256_of(path) == attempt.sha256 else None
