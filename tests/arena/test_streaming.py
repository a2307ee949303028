"""Of many images few are in memory: judging holds a batch of them, and a report a part of their records."""

from __future__ import annotations

import tracemalloc
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from duo_unlearn.arena.judge import BATCH, judge
from duo_unlearn.detectors.interface import Contract
from duo_unlearn.records import ORIGINAL, Attempt, Verdict
from duo_unlearn.report.pictures import grids
from duo_unlearn.report.read import read_contents
from duo_unlearn.runs.attempts import Group, GroupRecord, Part, attempts_of, write_group, write_part
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.verdicts import read_verdicts
from duo_unlearn.storage.pictures import save_png

PART = 50


class Brightness:
    """Sees the concept in bright pictures, and reads whether they are. It counts the pictures that are alive."""

    contract = Contract("brightness", ("light",), 0.5, "00000000")

    def __init__(self) -> None:
        self.alive: list[weakref.ref[Image.Image]] = []
        self.most = 0

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        self.alive = [*(one for one in self.alive if one() is not None), *(weakref.ref(image) for image in images)]
        self.most = max(self.most, len(self.alive))
        return [Verdict(self._score(image) > 0.5, self._score(image)) for image in images]

    def read(self, images: Sequence[Image.Image]) -> list[Mapping[str, str]]:
        return [{"light": "bright" if self._score(image) > 0.5 else "dark"} for image in images]

    def _score(self, image: Image.Image) -> float:
        colour = image.getpixel((0, 0))
        assert isinstance(colour, tuple)
        return float(colour[0]) / 255


def asked_run(folder: Path, count: int, *, pictures: bool) -> Run:
    """A run with that many attempts of one prompt set on the original, in parts of PART. pictures: with their files."""
    run = Run(folder)
    names = [f"{first:04}" for first in range(0, count, PART)]
    group = Group(ORIGINAL, "keep", "direct", None)
    write_group(run, GroupRecord(group, "0" * 64, "keep", "Direct", {}, None, None, count, dict.fromkeys(names, "key")))
    for first in range(0, count, PART):
        attempts = []
        for i in range(first, min(first + PART, count)):
            path, sha256 = group.folder(run) / f"{i:04}.png", f"{i:064}"
            if pictures:
                picture = Image.new("RGB", (2, 2), (i % 256, i // 256, 0))
                picture.putpixel((1, 1), (0, 0, 255))
                sha256 = save_png(picture, path)
            text = f"a knight number {i}"
            file = str(path.relative_to(folder))
            attempts.append(Attempt(text, {"subject": "knight"}, i, text, {}, file, sha256))
        write_part(group.folder(run) / f"{first:04}.json", Part("key", attempts, 1.0))
    return run


def test_judging_holds_a_batch_of_pictures(tmp_path: Path) -> None:
    run, detector = asked_run(tmp_path, 3 * BATCH + 7, pictures=True), Brightness()
    assert judge(run, detector, quiet=True)
    assert BATCH <= detector.most <= 2 * BATCH  # a batch, and the one before it until the next is read
    verdicts = read_verdicts(run, str(detector.contract))
    assert verdicts is not None
    assert len(verdicts.readings) == 3 * BATCH + 7
    assert not judge(run, detector, quiet=True)


def test_images_that_read_alike_share_what_was_read(tmp_path: Path) -> None:
    run, detector = asked_run(tmp_path, 40, pictures=True), Brightness()
    judge(run, detector, quiet=True)
    verdicts = read_verdicts(run, str(detector.contract))
    assert verdicts is not None
    assert len({id(reading.attributes) for reading in verdicts.readings.values()}) == 1


def test_a_plain_prompt_is_one_string_with_its_text(tmp_path: Path) -> None:
    run = asked_run(tmp_path, 3, pictures=False)
    record = GroupRecord(
        Group(ORIGINAL, "keep", "direct", None), "0" * 64, "keep", "Direct", {}, None, None, 3, {"0000": "key"}
    )
    first, *_ = attempts_of(run, record)
    assert first.text is first.prompt
    assert first.shows == {"subject": "knight"}


def peak(run: Run) -> int:
    """Bytes that reading a run for its page and laying out its grids take at most, above those before."""
    tracemalloc.start()
    try:
        contents = read_contents(run)
        ((grid, _),) = grids(run, contents, contents.groups)
        assert len(grid.cells) == 24
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_page_holds_a_part_of_the_attempts(tmp_path: Path) -> None:
    few, many = (asked_run(tmp_path / str(count), count, pictures=False) for count in (4 * PART, 24 * PART))
    peak(few)  # what is imported and cached once
    assert (peak(many) - peak(few)) / (20 * PART) < 250  # an attempt by itself takes four times as much
