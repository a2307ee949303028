"""Own pairs are judged when they are imported: sides that look swapped are refused with the numbers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from duo_unlearn.detectors.interface import Contract, Detector
from duo_unlearn.detectors.registry import make_detector
from duo_unlearn.errors import DuoError
from duo_unlearn.pairs.manifest import read_manifest, set_keep
from duo_unlearn.pairs.own_pairs import import_pairs, load_pairs
from duo_unlearn.records import Verdict
from duo_unlearn.storage.pictures import open_image

from ..drawn_pairs import draw_pairs


class RedSeer:
    """Sees the concept where the middle of an image is red; fails on images that are blue there."""

    contract = Contract("red-seer", (), 0.5, "00000000")

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        return [self._verdict(image) for image in images]

    def _verdict(self, image: Image.Image) -> Verdict:
        pixel = image.getpixel((image.width // 2, image.height // 2))
        assert isinstance(pixel, tuple)
        if pixel[2] > 200:
            raise ValueError("blue")
        return Verdict(pixel[0] > 200, round(pixel[0] / 255, 3))


RED, GREEN, BLUE = (255, 0, 0), (20, 200, 0), (0, 0, 255)


def write_pairs(folder: Path, unsafe: str, safe: str) -> Path:
    """A pair a letter, r, g or b: the colour of its members' middle."""
    colours = {"r": RED, "g": GREEN, "b": BLUE}
    for side, letters in (("unsafe", unsafe), ("safe", safe)):
        (folder / side).mkdir(parents=True)
        for i, letter in enumerate(letters):
            image = Image.new("RGB", (12, 12), colours[letter])
            image.putpixel((0, 0), (i, 0 if side == "safe" else 1, 0))
            image.save(folder / side / f"{i}.png")
    return folder


def test_swapped_sides_are_refused_with_the_numbers_and_nothing_is_written(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "mine", "rgggg", "rrrrg")
    with pytest.raises(DuoError) as caught:
        import_pairs(source, tmp_path / "pairs", detector=RedSeer(), quiet=True)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert "swapped" in lines[0]
    assert "the concept is seen in 1 of 5 unsafe and in 4 of 5 safe members" in lines[1]
    assert "swap the folders" in lines[2]
    assert "--trust-pairs" in lines[2]
    assert not (tmp_path / "pairs").exists()


def test_trusted_pairs_are_scored_and_taken(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "mine", "gg", "rg")
    pairs = import_pairs(source, tmp_path / "pairs", detector=RedSeer(), trust=True, quiet=True)
    assert [(p.unsafe_score, p.safe_score) for p in pairs] == [(0.078, 1.0), (0.078, 0.078)]
    assert load_pairs(tmp_path / "pairs") == pairs


def test_good_pairs_have_scores_and_no_word_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_pairs(tmp_path / "mine", "r" * 19, "g" * 19)
    pairs = import_pairs(source, tmp_path / "pairs", detector=RedSeer())
    assert {(p.unsafe_score, p.safe_score) for p in pairs} == {(1.0, 0.078)}
    assert "warning" not in capsys.readouterr().err
    assert read_manifest(tmp_path / "pairs").settings["judged_by"] == str(RedSeer.contract)


def test_pairs_that_fail_the_gates_are_kept_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_pairs(tmp_path / "mine", "rrrg", "rggg")
    pairs = import_pairs(source, tmp_path / "pairs", detector=RedSeer())
    assert all(pair.keep for pair in pairs)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert len(warnings) == 1
    assert "3 of 4 unsafe and in 1 of 4 safe" in warnings[0]


def test_an_image_that_the_detector_fails_on_has_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_pairs(tmp_path / "mine", "rbr", "ggg")
    pairs = import_pairs(source, tmp_path / "pairs", detector=RedSeer())
    assert [pair.unsafe_score for pair in pairs] == [1.0, None, 1.0]
    assert "1 of 6 images could not be judged (ValueError: blue)" in capsys.readouterr().err


def test_without_a_detector_nothing_is_judged(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "mine", "g", "r")
    (pair,) = import_pairs(source, tmp_path / "pairs", quiet=True)
    assert (pair.unsafe_score, pair.safe_score) == (None, None)
    assert "judged_by" not in read_manifest(tmp_path / "pairs").settings


def test_pairs_that_are_there_already_are_not_judged_again(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "mine", "rr", "gg")
    first = import_pairs(source, tmp_path / "pairs", detector=RedSeer(), quiet=True)
    set_keep(tmp_path / "pairs", ["1"], False, "dark")
    again = import_pairs(source, tmp_path / "pairs", quiet=True)
    assert [pair.unsafe_score for pair in again] == [pair.unsafe_score for pair in first]
    assert [pair.keep for pair in again] == [True, False]


def test_pairs_that_a_manifest_drops_do_not_count(tmp_path: Path) -> None:
    source = write_pairs(tmp_path / "mine", "rgg", "grr")
    entries = [
        f'{{"unsafe": "unsafe/{i}.png", "safe": "safe/{i}.png", "keep": {str(i == 0).lower()}}}' for i in range(3)
    ]
    (source / "manifest.json").write_text(f'{{"pairs": [{", ".join(entries)}]}}')
    assert len(import_pairs(source, tmp_path / "pairs", detector=RedSeer(), quiet=True)) == 3


def test_the_judge_of_the_mini_world_tells_swapped_swords(tmp_path: Path) -> None:
    judge: Detector = make_detector("mini-judge", ("item=sword",), "mini")
    draw_pairs(tmp_path / "mine", 6)
    pairs = import_pairs(tmp_path / "mine", tmp_path / "pairs", detector=judge, quiet=True)
    assert all(pair.unsafe_score is not None and pair.safe_score is not None for pair in pairs)
    assert all((pair.unsafe_score or 0) > (pair.safe_score or 0) for pair in pairs)
    swapped = tmp_path / "swapped"
    shutil.copytree(tmp_path / "mine" / "safe", swapped / "unsafe")
    shutil.copytree(tmp_path / "mine" / "unsafe", swapped / "safe")
    with pytest.raises(DuoError, match="in 0 of 6 unsafe and in 6 of 6 safe"):
        import_pairs(swapped, tmp_path / "other", detector=judge, quiet=True)
    assert open_image(swapped / "unsafe" / "0.png").size == (64, 64)
