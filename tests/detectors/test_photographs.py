"""The detectors of real pictures, with the weights that their packages carry, on harmless photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from duo_unlearn.detectors.interface import Detector, Extra
from duo_unlearn.detectors.nudenet import NudeNet
from duo_unlearn.detectors.registry import check_detector, make_detector
from duo_unlearn.errors import DuoError

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")


def redness(images: list[Image.Image]) -> list[float]:
    """A user's own detector: the mean of the red channel over that of all three."""
    means = [image.resize((1, 1), Image.Resampling.BOX).getpixel((0, 0)) for image in images]
    return [pixel[0] / max(sum(pixel), 1) for pixel in means if isinstance(pixel, tuple)]


def breaks(_images: list[Image.Image]) -> list[float]:
    raise ArithmeticError("no such colour")


def not_a_number(images: list[Image.Image]) -> list[float]:
    return [float("nan")] * len(images)


class Scorer:
    """A model of the user's own, kept in an object."""

    def __call__(self, images: list[Image.Image]) -> list[float]:
        return redness(images)


scorer = Scorer()


def too_few(_images: list[Image.Image]) -> list[float]:
    return [0.5]


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    return [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOGRAPHS]


def made(name: str, classifier_folder: Path) -> Detector:
    own = f"{__name__}:redness"
    by_name: dict[str, tuple[str, tuple[str, ...]]] = {
        "opennsfw": ("opennsfw", ()),
        "nudenet": ("nudenet", ()),
        "classifier": ("classifier", (f"model={classifier_folder}", "unsafe=violent", "unsafe=cruel")),
        "callable": (own, ("red",)),
    }
    return make_detector(*by_name[name], "sd1")


KINDS = ("opennsfw", "nudenet", "classifier", "callable")


@pytest.mark.parametrize("kind", KINDS)
def test_the_batch_changes_no_verdict(kind: str, photographs: list[Image.Image], classifier_folder: Path) -> None:
    detector = made(kind, classifier_folder)
    together = detector.detect(photographs)
    alone = [detector.detect([image])[0] for image in photographs]
    assert [v.detected for v in together] == [v.detected for v in alone]
    assert [v.score for v in together] == pytest.approx([v.score for v in alone], abs=1e-4)
    assert detector.detect([]) == []


@pytest.mark.parametrize("kind", ["opennsfw", "nudenet"])
def test_harmless_photographs_are_not_seen_as_nudity(
    kind: str, photographs: list[Image.Image], classifier_folder: Path
) -> None:
    assert not any(verdict.detected for verdict in made(kind, classifier_folder).detect(photographs))


def test_nudenet_reads_the_order_of_its_training(photographs: list[Image.Image]) -> None:
    """The face is found in the photograph, and in its red-blue mirror less surely."""
    detector = make_detector("nudenet", ("FACE_FEMALE",), "sd1")
    right, swapped = photographs[0], Image.merge("RGB", photographs[0].split()[::-1])
    (first,), (second,) = detector.detect([right]), detector.detect([swapped])
    assert first.detected
    assert first.score > second.score
    assert detector.contract.colours == "RGB"


def test_named_contracts_of_nudenet() -> None:
    paper, peers = make_detector("nudenet", (), "sd1"), make_detector("nudenet", ("contract=exposed-0.45",), "sd1")
    assert paper.contract == make_detector("nudenet", ("contract=paper",), "sd1").contract
    assert (len(paper.contract.labels), paper.contract.threshold) == (4, 0.25)
    assert (len(peers.contract.labels), peers.contract.threshold) == (9, 0.45)


def test_opennsfw_says_that_its_network_reads_bgr() -> None:
    contract = make_detector("opennsfw", (), "sd1").contract
    assert str(contract).startswith("opennsfw[nsfw>=0.5,BGR]@")


@pytest.mark.parametrize(
    ("name", "labels", "said"),
    [
        ("opennsfw", ("gore",), "one label"),
        ("nudenet", ("KNEE_EXPOSED",), "unknown label of nudenet"),
        ("nudenet", ("contract=strict",), "unknown contract of nudenet"),
        ("classifier", ("unsafe=violent",), "one model and its unsafe classes"),
        ("classifier", ("model=/nowhere/at/all", "unsafe=violent"), "cannot load the classifier"),
        ("q16", ("unsafe=blood",), "unknown label of q16"),
        ("no_such_module:score", (), "cannot import the detector"),
        (f"{__name__}:nothing", (), "cannot import the detector"),
        (f"{__name__}:PHOTOGRAPHS", (), "the detector is no function"),
        (":", (), "cannot import the detector"),
    ],
)
def test_what_is_refused(name: str, labels: tuple[str, ...], said: str) -> None:
    with pytest.raises(DuoError, match=said) as caught:
        make_detector(name, labels, "sd1")
    assert len(str(caught.value).splitlines()) <= 3


def test_an_unknown_class_is_told_with_the_known_ones(classifier_folder: Path) -> None:
    with pytest.raises(DuoError, match="no such class") as caught:
        make_detector("classifier", (f"model={classifier_folder}", "unsafe=loud"), "sd1")
    assert caught.value.hint == "its classes: calm, violent, cruel"


@pytest.mark.parametrize(
    ("function", "said"),
    [("breaks", "failed"), ("too_few", "another number of scores"), ("not_a_number", "gave no number")],
)
def test_a_users_function_that_errs_is_told(function: str, said: str, photographs: list[Image.Image]) -> None:
    with pytest.raises(DuoError, match=said):
        make_detector(f"{__name__}:{function}", (), "sd1").detect(photographs)


def test_an_object_that_can_be_called_is_a_detector(photographs: list[Image.Image]) -> None:
    plain = make_detector(f"{__name__}:redness", (), "sd1").detect(photographs)
    assert make_detector(f"{__name__}:scorer", (), "sd1").detect(photographs) == plain
    with pytest.raises(DuoError, match="cannot import the detector"):
        check_detector("no_such_module:score", "sd1")


def test_an_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NudeNet, "extra", Extra("no_such_package", "pip install no_such_package"))
    with pytest.raises(DuoError, match="not installed") as caught:
        check_detector("nudenet", "sd1")
    assert caught.value.hint == "pip install no_such_package"
