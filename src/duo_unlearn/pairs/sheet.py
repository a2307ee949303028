"""A contact sheet: every pair at a glance."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from ..records import Pair
from ..storage.pictures import open_image, save_png, sheet
from .manifest import load_pairs

MOST, COLUMNS, SIDE, GAP, LABEL = 48, 12, 96, 4, 16
CELL: Final = (SIDE + GAP, 2 * SIDE + 2 + LABEL + GAP)
"""How far apart the pairs stand on the sheet, pixels."""


def contact_sheet(folder: Path, path: Path) -> None:
    """Write a PNG: each unsafe image above its safe one, the pair's name under them, a dropped pair's name in red.

    folder: a pairs folder with its manifest. Of more than 48 pairs, 48 evenly spread ones are shown.
    """
    pairs = load_pairs(folder)
    chosen = [pairs[i * len(pairs) // MOST] for i in range(MOST)] if len(pairs) > MOST else pairs
    cells = [_cell(folder, pair) for pair in chosen] or [_empty_cell()]
    rows = [cells[first : first + COLUMNS] for first in range(0, len(cells), COLUMNS)]
    save_png(sheet(rows, gap=GAP, background="white"), path)


def _empty_cell() -> Image.Image:
    return Image.new("RGB", (CELL[0] - GAP, CELL[1] - GAP), "white")


def _cell(folder: Path, pair: Pair) -> Image.Image:
    cell = _empty_cell()
    for file, top in ((pair.unsafe, 0), (pair.safe, SIDE + 2)):
        image = open_image(folder / file)
        # Small pictures (the mini world's) stay crisp; large ones are averaged.
        smooth = Image.Resampling.LANCZOS if max(image.size) > SIDE else Image.Resampling.NEAREST
        scale = SIDE / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), smooth)
        cell.paste(image, ((SIDE - image.width) // 2, top + (SIDE - image.height) // 2))
    name = pair.name if len(pair.name) <= 15 else pair.name[:14] + "…"
    pen = ImageDraw.Draw(cell)
    pen.text((0, 2 * SIDE + 4), name, fill="black" if pair.keep else "red", font=ImageFont.load_default())
    return cell
