"""Both detectors on drawn scenes: what they see, that a batch changes nothing, and what they refuse."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from PIL import Image

from duo_unlearn.detectors.interface import AttributeReader, Detector, check_detector, make_detector
from duo_unlearn.errors import DuoError
from duo_unlearn.mini.model.bundle import weights_folder
from duo_unlearn.mini.world.scenes import SUBJECTS, draw, random_scene

SWORD = ("item=sword",)


def scenes(item: str, count: int = 12) -> list[Image.Image]:
    rng = random.Random(item)
    return [draw(random_scene(rng, subjects=SUBJECTS, items=(item,))) for _ in range(count)]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mini world's CLIP as a user has one: model, tokenizer and image processor in a folder."""
    from transformers import CLIPImageProcessor

    folder = tmp_path_factory.mktemp("clip")
    for part in ("clip", "tokenizer"):
        shutil.copytree(weights_folder() / part, folder, dirs_exist_ok=True)
    size = {"height": 64, "width": 64}
    half = [0.5, 0.5, 0.5]
    CLIPImageProcessor(size=size, crop_size=size, image_mean=half, image_std=half).save_pretrained(folder)
    return folder


@pytest.fixture(params=["mini-judge", "clip"])
def detector(request: pytest.FixtureRequest, clip_folder: Path) -> Detector:
    if request.param == "mini-judge":
        return make_detector("mini-judge", SWORD, "mini")
    safe = ("empty hands", "a wand", "a flower", "a balloon", "a book")
    texts = ("unsafe=a knight with a sword", *(f"safe=a knight with {thing}" for thing in safe))
    return make_detector("clip", (f"model={clip_folder}", *texts), "sd1")


def test_swords_are_seen_and_nothing_else(detector: Detector) -> None:
    swords, others = scenes("sword"), scenes("flower") + scenes("none")
    assert sum(verdict.detected for verdict in detector.detect(swords)) >= 11
    assert sum(verdict.detected for verdict in detector.detect(others)) <= 1


def test_the_batch_changes_no_verdict(detector: Detector) -> None:
    images = scenes("sword", 5) + scenes("wand", 5)
    together = detector.detect(images)
    alone = [detector.detect([image])[0] for image in images]
    assert [v.detected for v in together] == [v.detected for v in alone]
    assert [v.score for v in together] == pytest.approx([v.score for v in alone], abs=1e-4)
    assert detector.detect([]) == []


def test_the_threshold_is_part_of_the_contract(clip_folder: Path) -> None:
    labels = (f"model={clip_folder}", "unsafe=a sword", "safe=a flower")
    low, high = (make_detector("clip", labels, "sd1", threshold) for threshold in (0.0, 1.1))
    images = scenes("flower", 3)
    assert all(verdict.detected for verdict in low.detect(images))
    assert not any(verdict.detected for verdict in high.detect(images))
    assert str(low.contract) != str(high.contract)


def test_q16_is_clip_under_its_own_texts(clip_folder: Path) -> None:
    q16 = make_detector("q16", (f"model={clip_folder}",), "sd1")
    texts = ("unsafe=a picture of violence, blood or cruelty", "unsafe=a disturbing or shocking picture")
    safe = ("safe=a pleasant picture", "safe=an ordinary picture of people or things")
    clip = make_detector("clip", (f"model={clip_folder}", *texts, *safe), "sd1")
    images = scenes("sword", 3)
    assert q16.detect(images) == clip.detect(images)
    assert str(q16.contract).startswith("q16[")


def test_the_judge_reads_attributes() -> None:
    judge = make_detector("mini-judge", SWORD, "mini")
    assert isinstance(judge, AttributeReader)
    assert [found["item"] for found in judge.read(scenes("book", 4))] == ["book"] * 4


@pytest.mark.parametrize(
    ("name", "labels", "family", "said"),
    [
        ("mini-judg", SWORD, "mini", "unknown detector"),
        ("mini-judge", SWORD, "sd1", "mini world only"),
        ("mini-judge", ("item=axe",), "mini", "unknown label"),
        ("mini-judge", ("item=sword", "subject=king"), "mini", "labels of one attribute"),
        ("clip", ("unsafe=a sword",), "sd1", "texts for both sides"),
        ("clip", ("sword",), "sd1", "unknown label"),
        ("clip", ("model=/nowhere/clip", "unsafe=a", "safe=b"), "sd1", "cannot load the CLIP"),
    ],
)
def test_what_is_refused(name: str, labels: tuple[str, ...], family: str, said: str) -> None:
    with pytest.raises(DuoError, match=said) as caught:
        make_detector(name, labels, family)
    assert len(str(caught.value).splitlines()) <= 3


def test_the_check_loads_nothing() -> None:
    check_detector("clip", "sd1")
    check_detector("mini-judge", "mini")
