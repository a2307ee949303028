"""Concept files: their faults are found, all at once where that can be, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from duo_unlearn.concepts.store import concept_path, load_concept, shipped_concepts
from duo_unlearn.errors import DuoError
from duo_unlearn.settings.tree import merge
from duo_unlearn.storage.forms import read_yaml


def content(**changes: Any) -> dict[str, Any]:
    return {
        "name": "hat",
        "summary": "A hat.",
        "detector": {"name": "mini-judge", "labels": ["item=sword"]},
        "fill": {"who": ["king", "owl"], "where": {"shore": ["by the sea", "on the beach"]}},
        "pairs": [{"unsafe": "a {who} with a hat", "safe": "a {who}", "count": 2}],
    } | changes


def write(folder: Path, concept: dict[str, Any]) -> str:
    file = folder / "hat.yaml"
    file.write_text(yaml.safe_dump(concept))
    return str(file)


def fault(folder: Path, concept: dict[str, Any]) -> str:
    with pytest.raises(DuoError) as caught:
        load_concept(write(folder, concept))
    message = str(caught.value)
    assert len(message.splitlines()) <= 3
    assert "hat.yaml" in message
    return message


def test_a_concept_file_of_ones_own(tmp_path: Path) -> None:
    concept = load_concept(write(tmp_path, content()))
    assert concept.pairs[0].count == 2
    assert concept.strength == 0.75
    assert concept.split == "none"


def test_every_shipped_concept_loads_under_its_name() -> None:
    assert "sword" in shipped_concepts()
    for name in shipped_concepts():
        assert load_concept(name).name == name


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(DuoError, match="sword"):
        concept_path("swrod")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="cannot read the concept file"):
        load_concept(str(tmp_path / "none.yaml"))


def test_every_fault_is_in_one_error(tmp_path: Path) -> None:
    message = fault(tmp_path, content(sumary="x", name="Not A Name", strength=2, pairs=[]))
    for part in ("'sumary' (did you mean 'summary'?)", "name: ", "strength: ", "pairs: "):
        assert part in message


def test_a_required_part_is_missing(tmp_path: Path) -> None:
    broken = content()
    del broken["detector"]
    assert "detector: missing" in fault(tmp_path, broken)


@pytest.mark.parametrize(
    "changes",
    [
        {"pairs": [{"unsafe": "a {whom}", "safe": "a {who}", "count": 1}]},
        {"attacks": {"direct": {"templates": ["a {whom}"]}}},
        {"keep": [{"templates": ["a {whom}"]}]},
        {"neighbours": {"cap": [{"templates": ["a {whom}"]}]}},
    ],
)
def test_a_placeholder_without_values(changes: dict[str, Any], tmp_path: Path) -> None:
    message = fault(tmp_path, content(**changes))
    assert "{whom}" in message
    assert "fill" in message


def test_unbalanced_braces(tmp_path: Path) -> None:
    with pytest.raises(DuoError, match="braces"):
        load_concept(write(tmp_path, content(keep=[{"templates": ["a {who"]}])))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"neighbours": {"wand": []}}, "neighbours.wand"),
        ({"fill": {"colour": []}}, "fill.colour"),
        ({"judges": [{"name": "a", "labels": []}, {"name": "a", "labels": ["x"]}]}, "names a detector twice"),
        ({"fill": {"place": {"meadow": []}}}, "fill.place"),
        ({"fill": {"mood": {}}}, "fill.mood"),
        ({"fill": {"subject": ["man"]}}, "fill.subject is not the mini world's"),
        ({"neighbours": {"direct": [{"templates": ["a {colour} king"]}]}}, "two prompt sets of one name"),
        ({"attacks": {"../up": {"templates": ["a {colour} king"]}}}, "attacks"),
        ({"plain": {"templates": ["a {style} king"]}}, "{style}"),
    ],
)
def test_faults_of_a_copied_concept_file(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    content = merge(read_yaml(concept_path("sword"), "concept"), change)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(DuoError) as caught:
        load_concept(str(path))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


@pytest.mark.parametrize("words", [1, None, True, 2.5, "", "   ", "\t\n", "a\0b", ["a"], {"a": 1}])
def test_a_prompt_that_is_no_text_or_has_no_words_is_refused_and_named(words: Any, tmp_path: Path) -> None:
    templates = {"templates": ["a {who}", words]}
    places: dict[str, dict[str, Any]] = {
        "pairs.0.unsafe": {"pairs": [{"unsafe": words, "safe": "a {who}", "count": 2}]},
        "pairs.0.safe": {"pairs": [{"unsafe": "a {who}", "safe": words, "count": 2}]},
        "attacks.direct.templates.1": {"attacks": {"direct": templates}},
        "plain.templates.1": {"plain": templates},
        "keep.0.templates.1": {"keep": [templates]},
        "neighbours.cap.0.templates.1": {"neighbours": {"cap": [templates]}},
        "fill.who": {"fill": {"who": ["king", words], "where": ["here"]}},
    }
    for place, changes in places.items():
        assert place in fault(tmp_path, content(**changes))


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "many"])
def test_an_absurd_count_of_pairs(count: Any, tmp_path: Path) -> None:
    assert "pairs.0.count" in fault(tmp_path, content(pairs=[{"unsafe": "a", "safe": "b", "count": count}]))


@pytest.mark.parametrize("name", ["keep", "plain", "control", "control-item"])
def test_the_names_of_our_own_sets_are_taken(name: str, tmp_path: Path) -> None:
    assert "two prompt sets of one name" in fault(tmp_path, content(attacks={name: {"templates": ["a {who}"]}}))


@pytest.mark.parametrize("name", ["x" * 300, "x" * 300 + ".yaml", "nu\0l", "nu\0l.yaml", "", "."])
def test_a_name_that_can_be_no_concepts(name: str) -> None:
    with pytest.raises(DuoError) as caught:
        load_concept(name)
    assert len(str(caught.value).splitlines()) <= 3
