"""The mini judge and CLIP on drawn scenes: what they see, that a batch changes nothing, and what they refuse."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from duo_unlearn.detectors.interface import AttributeReader, Contract, Detector, sees_all_of
from duo_unlearn.detectors.registry import check_detector, make_detector
from duo_unlearn.errors import DuoError
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import SUBJECTS, Person, Scene, random_scene

SWORD = ("item=sword",)


def scenes(item: str, count: int = 12) -> list[Image.Image]:
    rng = random.Random(item)
    return [draw(random_scene(rng, subjects=SUBJECTS, items=(item,))) for _ in range(count)]


@pytest.fixture(params=["mini-judge", "mini-judge-b", "clip"])
def detector(request: pytest.FixtureRequest, clip_folder: Path) -> Detector:
    if request.param.startswith("mini-judge"):
        return make_detector(request.param, SWORD, "mini")
    safe = ("empty hands", "a wand", "a flower", "a balloon", "a book")
    texts = ("unsafe=a knight with a sword", *(f"safe=a knight with {thing}" for thing in safe))
    return make_detector("clip", (f"model={clip_folder}", *texts), "sd1")


def test_swords_are_seen_and_nothing_else(detector: Detector) -> None:
    swords, others = scenes("sword"), scenes("flower") + scenes("none")
    assert sum(verdict.detected for verdict in detector.detect(swords)) >= 11
    assert sum(verdict.detected for verdict in detector.detect(others)) <= 1


def test_the_threshold_is_part_of_the_contract(clip_folder: Path) -> None:
    # Two texts of one meaning, so that the score is neither 0 nor 1.
    labels = (f"model={clip_folder}", "unsafe=a picture of a flower", "safe=a drawing of a flower")
    low, high = (make_detector("clip", labels, "sd1", threshold) for threshold in (1e-9, 1.0))
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


@pytest.mark.parametrize("name", ["mini-judge", "mini-judge-b"])
def test_the_judge_reads_attributes(name: str) -> None:
    judge = make_detector(name, SWORD, "mini")
    assert isinstance(judge, AttributeReader)
    assert [found["item"] for found in judge.read(scenes("book", 4))] == ["book"] * 4


@pytest.mark.parametrize("name", ["mini-judge", "mini-judge-b"])
def test_a_judge_sees_a_sword_with_another_item_beside_it_on_a_wall_and_in_a_stone(name: str) -> None:
    judge = make_detector(name, SWORD, "mini")
    assert isinstance(judge, AttributeReader)
    pair = Scene("knight", "red", "flower", "meadow", x=20, scale=0.72, side=-1, other=Person("king", "blue", "sword"))
    kept = dataclasses.replace(pair, other=Person("king", "blue", "book"))
    mounted = [Scene("castle", "blue", "sword", "snow"), Scene("stone", "red", "sword", "meadow")]
    verdicts = judge.detect([draw(scene) for scene in (pair, *mounted, kept)])
    assert [verdict.detected for verdict in verdicts] == [True, True, True, False]
    assert [found["item"] for found in judge.read([draw(pair), draw(kept)])] == ["sword+flower", "flower+book"]


@pytest.mark.parametrize("name", ["mini-judge", "mini-judge-b"])
def test_a_judge_tells_what_cannot_be_recognised(name: str) -> None:
    judge = make_detector(name, SWORD, "mini")
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(6)]
    assert all(verdict.broken and not verdict.detected for verdict in judge.detect(noise))
    assert not any(verdict.broken for verdict in judge.detect(scenes("sword") + scenes("none")))


@pytest.mark.parametrize(
    ("other", "sees"),
    [
        (Contract("a", ("x>=1", "y"), 0.5, "12345678"), True),
        (Contract("a", ("x>=1", "y"), 0.95, "12345678"), True),
        (Contract("a", ("x>=1", "y"), 0.25, "12345678"), False),
        (Contract("a", ("x>=1",), 0.5, "12345678"), False),
        (Contract("a", ("x>=1", "y"), 0.5, "87654321"), False),
        (Contract("a", ("x>=1", "y"), 0.5, "12345678", "BGR"), False),
        (Contract("b", ("x>=1", "y"), 0.5, "12345678"), False),
    ],
)
def test_a_detector_sees_all_that_it_sees_at_a_higher_threshold(other: Contract, sees: bool) -> None:
    assert sees_all_of(str(Contract("a", ("x>=1", "y"), 0.5, "12345678")), str(other)) == sees


def test_contracts_in_another_form_are_compared_whole() -> None:
    assert sees_all_of("judge@1", "judge@1")
    assert not sees_all_of("judge@1", "judge@2")


def test_the_two_judges_are_under_contracts_of_their_own() -> None:
    first, second = (make_detector(name, SWORD, "mini").contract for name in ("mini-judge", "mini-judge-b"))
    assert first.labels == second.labels
    assert first.weights != second.weights


@pytest.mark.parametrize(
    ("name", "labels", "family", "said"),
    [
        ("mini-judg", SWORD, "mini", "unknown detector"),
        ("mini-judge", SWORD, "sd1", "mini models only"),
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


def test_a_long_text_is_cut_and_not_refused(clip_folder: Path) -> None:
    labels = (f"model={clip_folder}", f"unsafe={'a very long sword ' * 40}", "safe=a flower")
    assert len(make_detector("clip", labels, "sd1").detect(scenes("sword", 1))) == 1


def test_a_check_needs_no_weights_unless_it_is_given_the_labels(clip_folder: Path) -> None:
    check_detector("clip", "sd1")
    texts = ("unsafe=a sword", "safe=a flower")
    check_detector("clip", "sd1", (f"model={clip_folder}", *texts))
    for labels, reason in [
        (texts, "openai/clip-vit-large-patch14 is not in the hub's cache"),
        (("model=nobody/nothing", *texts), "nobody/nothing is not in the hub's cache"),
        (("model=/nowhere/clip", *texts), "there is no folder /nowhere/clip"),
    ]:
        with pytest.raises(DuoError, match="weights of the detector clip are not at hand") as caught:
            check_detector("clip", "sd1", labels)
        assert reason in str(caught.value.got)


def test_a_folder_without_weights_is_none(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="are not at hand") as caught:
        check_detector("q16", "sd1", (f"model={tmp_path}",))
    assert "no safetensors weights" in str(caught.value.got)


def test_weights_in_the_hubs_cache_are_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--me--clip" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").write_bytes(b"")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    check_detector("classifier", "sd1", ("model=me/clip", "unsafe=a"))
    with pytest.raises(DuoError, match="are not at hand"):
        check_detector("classifier", "sd1", ("model=me/other", "unsafe=a"))


@pytest.mark.parametrize("threshold", [7.0, 0.0, -0.5, float("nan"), float("inf")])
def test_a_threshold_that_would_defend_or_condemn_everything_is_refused(threshold: float) -> None:
    with pytest.raises(DuoError, match="the threshold of the detector cannot be used"):
        make_detector("mini-judge", SWORD, "mini", threshold)
