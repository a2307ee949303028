"""The pictures of a report: small WEBP data URIs, before/after grids, and the pairs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from PIL import Image, ImageOps

from ..detectors.interface import UNREADABLE
from ..records import Pair
from ..runs.folder import Run
from .read import Contents
from .words import order_of

LIMIT: Final = 24
"""Pictures of a set that are shown: the first ones, never chosen."""
LARGEST: Final = 224
"""Longest side of an inlined picture, pixels; smaller ones stay as they are."""


class Picture(NamedTuple):
    """One picture. source: its data URI; None: the file is missing or cannot be read."""

    source: str | None
    detected: bool | None


class Cell(NamedTuple):
    """The same prompt and noise before and after."""

    prompt: str | None
    original: Picture | None
    erased: Picture | None


class Count(NamedTuple):
    """In how many of a model's images the concept was seen."""

    model: str
    detected: int
    n: int


class Grid(NamedTuple):
    """A prompt set's cells, how many there are in all, and the detections over all."""

    prompts: str
    cells: list[Cell]
    total: int
    counts: list[Count]


class PairCell(NamedTuple):
    """A pair, unsafe above safe."""

    pair: Pair
    unsafe: Picture
    safe: Picture


def data_uri(path: Path, inside: Path) -> str | None:
    """An image as a WEBP data URI, at most LARGEST pixels; None if it is missing, broken or not in `inside`."""
    try:
        if not path.resolve().is_relative_to(inside.resolve()):
            return None
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except UNREADABLE:
        return None
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=88, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def grids(run: Run, contents: Contents, limit: int = LIMIT) -> list[Grid]:
    """One grid for each prompt set that has pictures, attacks first."""
    folder = run.evaluation / "images"
    on_disk = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    names = sorted({*on_disk, *contents.verdicts}, key=order_of)
    found = [_grid(run, name, contents.verdicts.get(name, {}), limit) for name in names]
    return [grid for grid in found if grid.total]


def _grid(run: Run, prompts: str, verdicts: dict[str, list[dict[str, Any]]], limit: int) -> Grid:
    by_model = {model: verdicts.get(model) or _unjudged(run, prompts, model) for model in ("original", "erased")}
    return grid_of(run.evaluation, prompts, by_model, [model for model in by_model if verdicts.get(model)], limit)


def grid_of(
    folder: Path, name: str, by_model: dict[str, list[dict[str, Any]]], judged: Sequence[str], limit: int = LIMIT
) -> Grid:
    """A grid of both models' entries (prompt, file in `folder`, detected). judged: the models that have verdicts."""
    longest = max(len(entries) for entries in by_model.values())
    pictured = [i for i in range(longest) if any(_file(entries, i) for entries in by_model.values())]
    counts = [Count(model, *_counted(by_model[model])) for model in judged]
    cells = [_cell(folder, by_model["original"], by_model["erased"], i) for i in pictured[:limit]]
    return Grid(name, cells, longest, counts)


def _counted(entries: list[dict[str, Any]]) -> tuple[int, int]:
    """In how many the concept is seen, of those that were scored."""
    scored = [entry["detected"] for entry in entries if entry.get("detected") is not None]
    return sum(map(bool, scored)), len(scored)


def _unjudged(run: Run, prompts: str, model: str) -> list[dict[str, Any]]:
    """Pictures without verdicts (an evaluation that was stopped), by the number in their name."""
    folder = run.images(prompts, model)
    numbered = {int(p.stem): p for p in folder.glob("*.png") if p.stem.isdecimal()} if folder.is_dir() else {}
    count = min(max(numbered, default=-1) + 1, 10 * LIMIT)
    return [{"file": f"images/{prompts}/{model}/{numbered[i].name}" if i in numbered else None} for i in range(count)]


def _file(entries: list[dict[str, Any]], index: int) -> str | None:
    return entries[index].get("file") if index < len(entries) else None


def _cell(folder: Path, original: list[dict[str, Any]], erased: list[dict[str, Any]], index: int) -> Cell:
    here = [entries[index] for entries in (original, erased) if index < len(entries)]
    prompt = next((str(entry["prompt"]) for entry in here if entry.get("prompt") is not None), None)
    return Cell(prompt, _picture(folder, original, index), _picture(folder, erased, index))


def _picture(folder: Path, entries: list[dict[str, Any]], index: int) -> Picture | None:
    file = _file(entries, index)
    if file is None:
        return None
    return Picture(data_uri(folder / file, folder), entries[index].get("detected"))


def pair_cells(run: Run, contents: Contents) -> list[PairCell]:
    """Up to LIMIT pairs: kept ones first, with a quarter left for dropped ones if there are that many."""
    kept = [pair for pair in contents.pairs if pair.keep]
    dropped = [pair for pair in contents.pairs if not pair.keep]
    room = max(LIMIT - len(kept), min(len(dropped), LIMIT // 4))
    chosen = [*kept[: LIMIT - min(room, len(dropped))], *dropped[:room]]
    return [
        PairCell(
            pair,
            Picture(data_uri(run.pairs / pair.unsafe, run.pairs), None),
            Picture(data_uri(run.pairs / pair.safe, run.pairs), None),
        )
        for pair in chosen
    ]
