from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from duo_unlearn.pairs.own_pairs import save_manifest
from duo_unlearn.pairs.sheet import CELL, GAP, SIDE, contact_sheet
from duo_unlearn.records import Pair
from duo_unlearn.storage.pictures import save_png


def make_folder(folder: Path, count: int) -> Path:
    """Unsafe images red, by number; safe images blue."""
    pairs = []
    for i in range(count):
        name = f"{i:04}"
        unsafe = save_png(Image.new("RGB", (64, 64), (150 + i, 0, 0)), folder / "unsafe" / f"{name}.png")
        safe = save_png(Image.new("RGB", (64, 64), (0, 0, 150 + i)), folder / "safe" / f"{name}.png")
        pairs.append(Pair(name, f"unsafe/{name}.png", f"safe/{name}.png", unsafe, safe, keep=i != 1))
    save_manifest(folder, concept=None, settings={}, pairs=pairs)
    return folder


def test_unsafe_stands_above_safe_above_the_name(tmp_path: Path) -> None:
    contact_sheet(make_folder(tmp_path, 14), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = image.convert("RGB")
    assert sheet.size == (GAP + 12 * CELL[0], GAP + 2 * CELL[1])
    for i in (0, 5, 13):
        x, y = GAP + i % 12 * CELL[0] + SIDE // 2, GAP + i // 12 * CELL[1] + SIDE // 2
        assert sheet.getpixel((x, y)) == (150 + i, 0, 0)
        assert sheet.getpixel((x, y + SIDE + 2)) == (0, 0, 150 + i)
    top = GAP + 2 * SIDE + 2
    labels = [sheet.crop((GAP + i * CELL[0], top, GAP + i * CELL[0] + SIDE, top + 16)) for i in (0, 1)]
    channels = [np.asarray(label).astype(int) for label in labels]
    red = [int((c[..., 0] > c[..., 1] + 100).sum()) for c in channels]
    assert red[0] == 0
    assert red[1] > 10
    assert channels[0].min() < 100


@pytest.mark.parametrize(("count", "rows"), [(0, 1), (1, 1), (48, 4), (60, 4)])
def test_at_most_48_pairs_are_shown(tmp_path: Path, count: int, rows: int) -> None:
    contact_sheet(make_folder(tmp_path, count), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.height == GAP + rows * CELL[1]
