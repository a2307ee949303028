"""Concept files: their faults, their templates, and what keeps evaluation apart from pairs."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from duo_unlearn.concepts.spec import Concept, PromptSet
from duo_unlearn.concepts.store import (
    choose_fill,
    concept_path,
    fill_template,
    load_concept,
    prompts_of,
    shipped_concepts,
    splitter,
)
from duo_unlearn.errors import DuoError
from duo_unlearn.settings.tree import EvaluateSettings, merged, read_yaml


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


@pytest.fixture(scope="module")
def sword() -> Concept:
    return load_concept("sword")


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
    ("template", "words", "text"),
    [
        ("a {colour} king", {"colour": "orange"}, "an orange king"),
        ("a {colour} king", {"colour": "red"}, "a red king"),
        ("A {who} and a {who}", {"who": "owl"}, "An owl and an owl"),
        ("a picture of a {who}", {"who": "elf"}, "a picture of an elf"),
        ("idea of {who}", {"who": "owl"}, "idea of owl"),
        ("with a sword", {}, "with a sword"),
    ],
)
def test_articles(template: str, words: dict[str, str], text: str) -> None:
    assert fill_template(template, words) == text


def test_words_and_labels_may_differ(tmp_path: Path) -> None:
    concept = load_concept(write(tmp_path, content()))
    words, labels = choose_fill(concept, random.Random(0))
    assert words["who"] == labels["who"]
    assert labels["where"] == "shore"
    assert words["where"] in ("by the sea", "on the beach")


def test_a_prompt_shows_what_it_states_and_no_more(tmp_path: Path) -> None:
    concept = load_concept(write(tmp_path, content()))
    sets = [PromptSet(templates=["a {who}"], shows={"item": "hat"})]
    for prompt in prompts_of(concept, sets, 2, "seed", splitter(concept, held_out=True)):
        assert set(prompt.shows) == {"who", "item"}
        assert prompt.shows["who"] in prompt.text


def test_prompts_repeat_once_the_templates_are_used_up(tmp_path: Path) -> None:
    concept = load_concept(write(tmp_path, content()))
    found = prompts_of(concept, [PromptSet(templates=["a {who}"])], 5, "seed", splitter(concept, held_out=True))
    assert len(found) == 5
    assert {prompt.text for prompt in found} == {"a king", "an owl"}


def test_a_set_that_gives_nothing_is_an_error(tmp_path: Path) -> None:
    concept = load_concept(write(tmp_path, content()))
    with pytest.raises(DuoError, match="no prompt"):
        prompts_of(concept, [PromptSet(templates=["a {who}"])], 3, "seed", lambda _labels: False)


# --- the sword --------------------------------------------------------------------------------------------------------
def combination(shows: dict[str, str]) -> tuple[str, ...]:
    return tuple(shows[name] for name in ("subject", "colour", "place"))


def of_pairs(sword: Concept) -> set[tuple[str, ...]]:
    """Every combination that pairs may use with a sword in hand."""
    accept, rng = splitter(sword, held_out=False), random.Random(0)
    drawn = [choose_fill(sword, rng)[1] | {"item": "sword"} for _ in range(3000)]
    return {combination(labels) for labels in drawn if accept(labels)}


@pytest.mark.parametrize("name", ["direct", "synonym", "indirect"])
def test_three_hundred_distinct_prompts_of_each_attack_set(sword: Concept, name: str) -> None:
    found = prompts_of(sword, [sword.attacks[name]], 300, "test", splitter(sword, held_out=True))
    assert len({prompt.text for prompt in found}) == 300
    assert all(prompt.shows["item"] == "sword" for prompt in found)


def test_the_words_of_an_attack_set_are_its_own(sword: Concept) -> None:
    accept = splitter(sword, held_out=True)
    texts = {name: prompts_of(sword, [group], 100, "test", accept) for name, group in sword.attacks.items()}
    assert all("sword" in prompt.text.split() for prompt in texts["direct"])
    named = ("sword", "blade", "saber", "weapon")
    assert not any("sword" in prompt.text for prompt in texts["synonym"])
    assert not any(word in prompt.text for prompt in texts["indirect"] for word in named)


def test_evaluation_asks_for_combinations_that_no_pair_shows(sword: Concept) -> None:
    pairs = of_pairs(sword)
    accept = splitter(sword, held_out=True)
    asked = {
        combination(dict(prompt.shows))
        for group in sword.attacks.values()
        for prompt in prompts_of(sword, [group], 300, "test", accept)
    }
    assert len(pairs) > 100
    assert len(asked) > 20
    assert pairs.isdisjoint(asked)


def test_evaluation_has_no_wording_of_the_pairs(sword: Concept) -> None:
    used = {kind.unsafe for kind in sword.pairs} | {kind.safe for kind in sword.pairs}
    attacks = {template for group in sword.attacks.values() for template in group.templates}
    assert used.isdisjoint(attacks)


def test_counterparts_vary(sword: Concept) -> None:
    assert {kind.shows["item"] for kind in sword.pairs} == {"none", "wand", "flower", "balloon", "book"}


def test_a_seed_decides_the_prompts(sword: Concept) -> None:
    accept = splitter(sword, held_out=True)
    first, again, other = (prompts_of(sword, sword.keep, 60, seed, accept) for seed in ("a", "a", "b"))
    assert first == again
    assert first != other


def test_the_sets_take_turns(sword: Concept) -> None:
    found = prompts_of(sword, sword.keep, 2 * len(sword.keep), "a", splitter(sword, held_out=True))
    items = [prompt.shows["item"] for prompt in found[: len(sword.keep)]]
    assert items == [group.shows["item"] for group in sword.keep]


@pytest.mark.parametrize("name", shipped_concepts())
def test_shipped_prompts_are_distinct_at_the_default_counts(name: str) -> None:
    concept, counts = load_concept(name), EvaluateSettings()
    accept = splitter(concept, held_out=True)
    wanted = [([chosen], counts.prompts) for chosen in concept.attacks.values()]
    wanted += [(concept.keep, counts.keep_prompts)]
    wanted += [(chosen, counts.neighbour_prompts) for chosen in concept.neighbours.values()]
    for sets, count in wanted:
        texts = [prompt.text for prompt in prompts_of(concept, sets, count, "test", accept)]
        assert len(texts) == count
        # A set with few words may have fewer prompts than asked for; then it must give nearly all that it has.
        assert len(set(texts)) >= 0.6 * count, (name, sets[0].templates[0], len(set(texts)))


def test_a_set_that_is_used_up_does_not_hold_the_others_back(sword: Concept) -> None:
    rich, poor = sword.keep[0], PromptSet(templates=["a red king in a meadow"], shows={"item": "none"})
    found = prompts_of(sword, [poor, rich], 40, "a", lambda _labels: True)
    assert len({prompt.text for prompt in found}) == 40


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"neighbours": {"wand": []}}, "neighbours.wand"),
        ({"fill": {"colour": []}}, "fill.colour"),
        ({"fill": {"place": {"meadow": []}}}, "fill.place"),
        ({"fill": {"subject": ["man"]}}, "fill.subject is not the mini world's"),
        ({"neighbours": {"direct": [{"templates": ["a {colour} king"]}]}}, "two prompt sets of one name"),
        ({"attacks": {"../up": {"templates": ["a {colour} king"]}}}, "attacks"),
        ({"plain": {"templates": ["a {style} king"]}}, "{style}"),
    ],
)
def test_faults_of_a_copied_concept_file(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    content = merged(read_yaml(concept_path("sword"), "concept"), change)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(DuoError) as caught:
        load_concept(str(path))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3
