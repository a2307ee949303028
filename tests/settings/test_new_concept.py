"""A concept file from one sentence: valid, commented, and for a model that is named with what it can be judged by."""

from __future__ import annotations

from pathlib import Path

import pytest

from duo_unlearn.concepts.new import new_concept, words_of
from duo_unlearn.concepts.store import load_concept
from duo_unlearn.detectors.registry import check_detector
from duo_unlearn.errors import DuoError
from duo_unlearn.settings.ground import ground_of
from duo_unlearn.settings.resolve import resolve_settings


def test_a_new_concept_is_valid_and_varies_its_counterparts(tmp_path: Path) -> None:
    path = tmp_path / "umbrella.yaml"
    new_concept(path, "A person with an umbrella.", ["a person with a bag", "a person", "a person with a hat"])
    concept = load_concept(str(path))
    assert concept.name == "a-person-with-an-umbrella"
    assert [kind.count for kind in concept.pairs] == [22, 21, 21]
    assert len({kind.safe for kind in concept.pairs}) == 3
    assert path.read_text().count("#") > 10


@pytest.mark.parametrize(
    ("sentence", "name", "said"),
    [("  ", "a.yaml", "needs words"), ("{x}", "a.yaml", "needs words"), ("a hat", "a.txt", "is YAML")],
)
def test_what_new_refuses(tmp_path: Path, sentence: str, name: str, said: str) -> None:
    with pytest.raises(DuoError, match=said):
        new_concept(tmp_path / name, sentence)
    assert not (tmp_path / name).exists()


def test_new_overwrites_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\n")
    with pytest.raises(DuoError, match="there already"):
        new_concept(path, "a hat")
    assert path.read_text() == "name: mine\n"


def test_without_a_model_clip_judges_and_nothing_is_recommended(tmp_path: Path) -> None:
    path = tmp_path / "hat.yaml"
    new_concept(path, "a hat", ["a bare head"])
    concept = load_concept(str(path))
    assert (concept.detector.name, concept.judges, concept.recommended) == ("clip", [], {})
    assert concept.detector.labels == ["unsafe=a picture of a hat", "safe=a picture of a bare head"]


@pytest.mark.parametrize(
    ("sentence", "labels"),
    [
        ("a wizard", ["subject=wizard"]),
        ("Swords in a king's hand", ["item=sword"]),  # an item goes before a subject
        ("a sword, drawn", ["item=sword"]),
        ("a castle and a boat", ["subject=boat", "subject=castle"]),
    ],
)
def test_on_mini_the_judges_look_for_what_the_sentence_names(tmp_path: Path, sentence: str, labels: list[str]) -> None:
    path = tmp_path / "new.yaml"
    new_concept(path, sentence, ["a farmer"], ground_of("mini", sentence, ["a farmer"]))
    concept = load_concept(str(path))
    (judge,) = concept.judges
    assert (concept.detector.name, judge.name) == ("mini-judge", "mini-judge-b")
    assert concept.detector.labels == judge.labels == labels
    check_detector(concept.detector.name, "mini", tuple(concept.detector.labels))
    assert "in the snow" in concept.fill["place"]
    # The family's settings are those of a run on it.
    settings, shipped = (resolve_settings({"concept": name}) for name in (str(path), "sword"))
    assert settings.train == shipped.train
    assert settings.erasers == shipped.erasers
    assert shipped.guards
    assert not settings.guards


def test_what_no_judge_of_mini_sees_is_told_with_what_they_see() -> None:
    with pytest.raises(DuoError, match="mini-judge cannot see that") as caught:
        ground_of("mini", "a horse", [])
    assert "subject=wizard" in str(caught.value.hint)
    assert "umbrella" in str(caught.value.hint)


def test_mini_must_be_told_what_to_draw_instead_and_other_models_have_a_usual_one() -> None:
    with pytest.raises(DuoError, match="must be told what to draw"):
        ground_of("mini", *words_of("a wizard."))
    ground = ground_of("CompVis/stable-diffusion-v1-4", *words_of(" An umbrella. "))
    assert ground.detector["labels"] == [
        "unsafe=a picture of An umbrella", "safe=a picture of a person", "safe=a picture of an ordinary thing"
    ]  # fmt: skip


def test_a_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="there is no model folder"):
        ground_of(str(tmp_path / "nothing"), "a hat", [])
