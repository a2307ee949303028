"""What runs share by copying: the pairs, an edit, and what was made of the original model."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from ..edits.provenance import edit_hash
from ..errors import DuoError
from ..pairs.manifest import MANIFEST
from ..records import ORIGINAL
from ..runs.attempts import read_part, write_part
from ..runs.folder import Run
from ..storage.files import write_bytes


def share_pairs(source: Run, target: Run, eraser: str) -> None:
    """Copy the pairs, held-out ones too, where the target has none or others (someone dropped some).

    What the eraser trained on others is then taken away. DuoError: the source has no pairs.
    """
    if not (source.pairs / MANIFEST).exists():
        raise DuoError(f"{source.folder} holds no pairs", hint="run `duo pairs` first")
    for folder, own in ((source.held_out, target.held_out), (source.pairs, target.pairs)):
        if (there := _list(folder)) is not None and there != _list(own):
            copy_files(folder, own)
            shutil.rmtree(target.checkpoint(eraser).parent, ignore_errors=True)


def _list(folder: Path) -> bytes | None:
    """The list of the pairs in a folder, as its file has it; None where there is none."""
    path = folder / MANIFEST
    return path.read_bytes() if path.exists() else None


def share_originals(source: Run, target: Run) -> None:
    """Copy the original model's images and attempts, but for those that are there already."""
    for folder, own in ((source.originals, target.originals), (source.attempts / ORIGINAL, target.attempts / ORIGINAL)):
        for path, place in _files(folder, own):
            if place.exists() or ".state." in path.name:
                continue
            if path.suffix != ".json" or not path.stem.isdigit():
                write_bytes(place, path.read_bytes())
            elif (part := read_part(path)) is not None:
                # The time was another run's, and is counted there.
                write_part(place, part._replace(seconds=None))


def share_edit(source: Path, target: Path) -> None:
    """Copy an edit, where the target has none or another; a copy that was stopped half-way is made again."""
    wanted = edit_hash(source)
    with contextlib.suppress(DuoError):
        if target.is_dir() and edit_hash(target) == wanted:
            return
    shutil.rmtree(target, ignore_errors=True)
    copy_files(source, target)


def copy_files(source: Path, target: Path) -> None:
    """Copy every whole file of a folder."""
    for path, place in _files(source, target):
        write_bytes(place, path.read_bytes())


def _files(source: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Every whole file of a folder, and its place in another one."""
    # The list of pairs last: with it a folder counts as whole.
    for path in sorted(source.rglob("*"), key=lambda one: (one.name == MANIFEST, one)):
        # What starts with a dot is being written; what ends so was set aside.
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".broken":
            yield path, target / path.relative_to(source)
