"""What every detector of the registry promises. A new one is under test by its line there."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from duo_unlearn.detectors.interface import Detector, Extra
from duo_unlearn.detectors.registry import DETECTORS, check_detector, known_weights, make_detector
from duo_unlearn.errors import DuoError
from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import SUBJECTS, random_scene

IMAGES = [draw(random_scene(random.Random(i), subjects=SUBJECTS, items=("sword", "flower"))) for i in range(5)]
OTHER_FORMS = [IMAGES[0].convert("L"), IMAGES[1].convert("RGBA"), IMAGES[2].resize((90, 50)), IMAGES[3].convert("P")]


@pytest.fixture(params=DETECTORS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def labels(name: str, clip_folder: Path, classifier_folder: Path) -> tuple[str, ...]:
    """The detector's example, with a small model of ours in the place of one on the hub."""
    local = {
        "clip": (f"model={clip_folder}", *DETECTORS.get("clip").example),
        "q16": (f"model={clip_folder}",),
        "classifier": (f"model={classifier_folder}", "unsafe=violent", "unsafe=cruel"),
    }
    return local.get(name, DETECTORS.get(name).example)


def family_for(name: str) -> str:
    return (DETECTORS.get(name).families or ("sd1",))[0]


def fault(check: Callable[[], None]) -> DuoError | None:
    try:
        check()
    except DuoError as error:
        return error
    return None


@pytest.fixture
def detector(name: str, labels: tuple[str, ...]) -> Detector:
    """The detector, or a skip with the reason why there is none on this machine."""
    if (error := fault(lambda: check_detector(name, family_for(name), labels))) is not None:
        pytest.skip(str(error))
    return make_detector(name, labels, family_for(name))


def test_its_facts_are_whole(name: str) -> None:
    facts = DETECTORS.get(name)
    assert facts.families is None or set(facts.families) <= set(FAMILIES.names())
    assert facts.extra is None or isinstance(facts.extra, Extra)
    assert isinstance(facts.example, tuple)
    assert ":" not in name  # that is how a user's own function is named


def test_the_facts_are_read_without_torch() -> None:
    code = (
        "import sys; from duo_unlearn.detectors.registry import DETECTORS, check_detector\n"
        "for name in DETECTORS.names():\n"
        "    facts = DETECTORS.get(name); facts.why_no_weights(facts.example)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_its_example_can_be_had_or_it_says_why_not(name: str) -> None:
    family, example = family_for(name), DETECTORS.get(name).example
    error = fault(lambda: check_detector(name, family, example))
    if error is None:
        assert make_detector(name, example, family).contract.name == name
        return
    assert error.hint is not None
    if "not at hand" in error.problem:
        assert error.got is not None
        with pytest.raises(DuoError, match="cannot load"):  # no network in tests
            make_detector(name, example, family)


def test_labels_that_it_does_not_take_are_refused_before_anything_is_loaded(name: str) -> None:
    with pytest.raises(DuoError) as caught:
        DETECTORS.get(name).why_no_weights(("no such thing=at all",))
    assert len(str(caught.value).splitlines()) <= 3
    assert "no such thing=at all" in str(caught.value)


def test_it_refuses_the_pictures_of_families_that_it_does_not_know(name: str) -> None:
    known = DETECTORS.get(name).families
    for family in FAMILIES.names():
        if known is not None and family not in known:
            with pytest.raises(DuoError, match="only") as caught:
                check_detector(name, family)
            assert family in str(caught.value.got)


def test_the_hash_of_its_weights_is_known_before_they_are_loaded(
    name: str, detector: Detector, labels: tuple[str, ...]
) -> None:
    assert known_weights(name, labels) == detector.contract.weights


def test_its_contract_is_under_its_name(name: str, detector: Detector, labels: tuple[str, ...]) -> None:
    contract = detector.contract
    assert contract.name == name
    assert re.fullmatch(r"[0-9a-f]{8}", contract.weights)
    assert str(contract).startswith(f"{name}[")
    assert make_detector(name, labels, family_for(name)).contract == contract
    strict = make_detector(name, labels, family_for(name), 0.75)
    assert strict.contract == contract._replace(threshold=0.75)


def test_a_verdict_is_a_score_beside_the_threshold_and_no_batch_changes_it(detector: Detector) -> None:
    together = detector.detect(IMAGES)
    alone = [detector.detect([image])[0] for image in IMAGES]
    assert [v.score for v in together] == pytest.approx([v.score for v in alone], abs=1e-4)
    assert [v.detected for v in together] == [v.detected for v in alone]
    assert all(verdict.detected == (verdict.score >= detector.contract.threshold) for verdict in together)
    assert detector.detect([]) == []


def test_images_of_every_mode_and_size_are_judged(detector: Detector) -> None:
    assert len(detector.detect(OTHER_FORMS)) == len(OTHER_FORMS)
    assert detector.detect([Image.new("RGB", (64, 64))]) == detector.detect([Image.new("L", (64, 64))])
