"""A contact sheet: every pair at a glance."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from ..records import Pair
from ..storage.files import write_bytes
from ..storage.pictures import open_image
from .own_pairs import load_pairs

MOST, COLUMNS, SIDE, GAP, LABEL = 48, 12, 96, 4, 16
CELL: Final = (SIDE + GAP, 2 * SIDE + 2 + LABEL + GAP)


def contact_sheet(folder: Path, path: Path) -> None:
    """Write a PNG: each unsafe image above its safe one, the pair's name under them, a dropped pair's name in red.

    Of more than 48 pairs, 48 evenly spread ones are shown.
    """
    pairs = load_pairs(folder)
    shown = [pairs[i * len(pairs) // MOST] for i in range(MOST)] if len(pairs) > MOST else pairs
    columns = max(1, min(COLUMNS, len(shown)))
    rows = max(1, -(-len(shown) // columns))
    sheet = Image.new("RGB", (GAP + columns * CELL[0], GAP + rows * CELL[1]), "white")
    for i, pair in enumerate(shown):
        _place(sheet, folder, pair, GAP + i % columns * CELL[0], GAP + i // columns * CELL[1])
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    write_bytes(path, buffer.getvalue())


def _place(sheet: Image.Image, folder: Path, pair: Pair, x: int, y: int) -> None:
    for file, top in ((pair.unsafe, y), (pair.safe, y + SIDE + 2)):
        image = open_image(folder / file)
        # Small pictures (the mini world's) stay crisp; large ones are averaged.
        smooth = Image.Resampling.LANCZOS if max(image.size) > SIDE else Image.Resampling.NEAREST
        scale = SIDE / max(image.size)
        image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), smooth)
        sheet.paste(image, (x + (SIDE - image.width) // 2, top + (SIDE - image.height) // 2))
    name = pair.name if len(pair.name) <= 15 else pair.name[:14] + "…"
    pen = ImageDraw.Draw(sheet)
    pen.text((x, y + 2 * SIDE + 4), name, fill="black" if pair.keep else "red", font=ImageFont.load_default())
