"""Several concepts as one: what asks for any of them, what sees them, and what must stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from duo_unlearn.arena.plans import attacked_scenarios, evaluation_plans
from duo_unlearn.concepts.joint import at_odds, join, near_several, rows_of
from duo_unlearn.concepts.prompt_sets import Counts, prompt_sets, prompts_of
from duo_unlearn.concepts.spec import Concept, Templates
from duo_unlearn.concepts.store import load_concept
from duo_unlearn.errors import DuoError
from duo_unlearn.session import Session
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.system import System


@pytest.fixture(scope="module")
def both() -> Concept:
    return load_concept("sword+balloon")


def test_sets_pairs_and_detectors_are_those_of_both(both: Concept) -> None:
    sword, balloon = load_concept("sword"), load_concept("balloon")
    assert (both.name, both.erased, both.joins) == ("sword-and-balloon", "sword + balloon", ["sword", "balloon"])
    assert list(both.attacks) == [f"sword-{n}" for n in sword.attacks] + [f"balloon-{n}" for n in balloon.attacks]
    assert both.detector.labels == ["item=sword", "item=balloon"]
    assert [judge.labels for judge in both.judges] == [["item=sword", "item=balloon"]]
    assert both.split == "mini"


def test_nothing_that_must_stay_shows_what_is_erased(both: Concept) -> None:
    erased = {"sword", "balloon"}
    safe = {kind.shows.get("item") for kind in both.pairs}
    assert "wand" in safe
    assert not safe & erased
    assert not {"sword", "balloon"} & both.neighbours.keys()
    assert {"wand", "flower"} <= both.neighbours.keys()
    kept = {part for one in both.keep for part in one.shows.get("item", "").split("+")}
    assert "book" in kept
    assert not kept & erased
    # Every one is a pair of the same kind in its own file.
    own = [*load_concept("sword").pairs, *load_concept("balloon").pairs]
    assert all(kind in own for kind in both.pairs)
    assert len(both.pairs) == len(own) - 2  # the sword's balloons, and the balloon's swords


def test_keep_prompts_without_either_concept_are_asked_once(both: Concept) -> None:
    texts = [str(one) for one in both.keep]
    assert len(texts) == len(set(texts))


def test_its_prompts_fill(both: Concept) -> None:
    sets = {one.name: one for one in prompt_sets(both, Counts(4, 6, 2, 2), 0)}
    assert "sword" in sets["sword-direct"].prompts[0].text
    assert "balloon" in sets["balloon-direct"].prompts[0].text
    assert len(sets["keep"].prompts) == 6


def test_attacks_start_from_a_set_of_each(both: Concept, tmp_path: Path) -> None:
    assert load_concept("sword").asking == ["direct"]
    assert both.asking == ["sword-direct", "balloon-direct"]
    session = Session(resolve_settings({"concept": "sword+balloon", "output": str(tmp_path)}))
    scenarios = attacked_scenarios(session, 3)
    assert [(one.name, len(one.prompts)) for one in scenarios] == [("sword-direct", 3), ("balloon-direct", 3)]


def test_which_concept_a_set_asks_for_and_a_pair_is_of(both: Concept) -> None:
    asked = {name: both.asked_by(name) for name in ("sword-direct", "balloon-long", "plain", "keep", "file-sword-x")}
    assert asked == {
        "sword-direct": "sword",
        "balloon-long": "balloon",
        "plain": None,
        "keep": None,
        "file-sword-x": None,
    }
    assert load_concept("sword").asked_by("direct") is None
    assert both.kinds_of == ["sword"] * 8 + ["balloon"] * (len(both.pairs) - 8)
    prompts = [
        "a red knight holding a sword in the snow", "an orange king holding a balloon on the beach, by the sea",
        "what a user wrote", None, "an orange pirate holding a sword on the grass",
    ]  # fmt: skip
    assert rows_of(both, "sword", prompts) == [0, 2, 3, 4]
    assert rows_of(both, "balloon", prompts) == [1, 2, 3]
    assert rows_of(both, "balloon", prompts[:1]) == [0]  # none is of it: all
    # Every prompt that a kind makes is of its concept.
    for name in both.joins:
        kinds = [Templates(templates=[kind.unsafe]) for kind in load_concept(name).pairs]
        made = [prompt.text for prompt in prompts_of(both, kinds, 40, "0", lambda _labels: True)]
        assert rows_of(both, name, made) == list(range(40))
        assert all(
            rows_of(both, one, [*made, prompts[both.joins.index(one)]]) == [40] for one in both.joins if one != name
        )


def test_what_a_sum_of_adapters_trained_apart_may_cost() -> None:
    several = [load_concept("sword"), load_concept("balloon")]
    assert {"wand", "flower", "umbrella"} <= set(near_several(several))
    assert not {"sword", "balloon"} & set(near_several(several))
    assert at_odds(several) == [("sword", "balloon"), ("balloon", "sword")]
    assert (near_several(several[:1]), at_odds(several[:1])) == ([], [])
    assert at_odds([load_concept("nudity"), load_concept("gun")]) == []


def test_files_may_be_joined_with_names(tmp_path: Any) -> None:
    path = tmp_path / "hat.yaml"
    path.write_text(
        "name: hat\nsummary: A hat.\nsplit: mini\ndetector: {name: mini-judge, labels: [item=sword]}\n"
        "fill: {subject: [king], colour: [red], place: [snow], item: [hat]}\n"
        "pairs: [{unsafe: 'a {item}', safe: 'a {subject}', count: 3}]\n"
    )
    joined = load_concept(f"{path}+balloon")
    assert joined.erased == "hat + balloon"
    assert joined.fill["subject"] == ["king", "knight", "wizard", "farmer", "robot", "pirate", "guard"]
    # Said in labels by one of them, so in labels by both.
    assert isinstance(joined.fill["place"], dict)
    assert joined.fill["place"]["snow"] == ["snow", "in the snow", "on a snowy day"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["sword", "sword"], "once each"),
        (["sword", "gun"], "another split"),
        (["gun", "nudity"], "another detector"),
        (["gun", "blood"], "another label"),
    ],
)
def test_what_cannot_be_joined_is_told(names: list[str], said: str) -> None:
    with pytest.raises(DuoError, match=said):
        join([load_concept(name) for name in names])


def test_a_concept_that_keeps_no_pairs_is_told() -> None:
    sword, balloon = load_concept("sword"), load_concept("balloon")
    alone = [kind for kind in sword.pairs if kind.shows == {"item": "balloon"}]
    with pytest.raises(DuoError, match="one has no pairs left") as raised:
        join([sword.model_copy(update={"pairs": alone}), balloon])
    assert raised.value.got == "every safe picture of sword shows another of them"


def test_a_negative_prompt_is_joined_where_every_concept_has_one() -> None:
    sword, balloon = load_concept("sword"), load_concept("balloon")
    both = [one.model_copy(update={"negative_prompt": f"a {one.name}"}) for one in (sword, balloon)]
    assert join(both).negative_prompt == "a sword, a balloon"
    assert join([sword, balloon]).negative_prompt is None
    # A pair of the sword has its own unsafe prompt then, and not words for a balloon.
    assert join([sword, both[1]]).negative_prompt is None


def test_an_unknown_part_is_told() -> None:
    with pytest.raises(DuoError, match="unknown concept"):
        load_concept("sword+nothing")


def test_a_guard_looks_for_both(both: Concept) -> None:
    guards = both.recommended["mini"].settings["guards"]
    assert guards["negative-prompt"]["text"] == "a figure holding a sword, a figure holding a balloon"
    alone = load_concept("sword").recommended["mini"].settings["guards"]
    assert alone["negative-prompt"]["text"] == "a figure holding a sword"  # the concepts themselves stay as they were
    assert guards["spell"] == alone["spell"]


def test_a_guard_that_has_a_text_for_one_alone_looks_for_the_name_of_the_other() -> None:
    sword, balloon = load_concept("sword"), load_concept("balloon")
    whole = balloon.recommended["mini"]
    for options in ({}, {"sld": {"preset": "weak"}}):
        settings = {**whole.settings, "guards": options}
        bare = balloon.model_copy(update={"recommended": {"mini": whole.model_copy(update={"settings": settings})}})
        for order, text in (
            ((sword, bare), "a figure holding a sword, balloon"),
            ((bare, sword), "balloon, a figure holding a sword"),
        ):
            guards = join(list(order)).recommended["mini"].settings["guards"]
            assert guards["sld"]["text"] == text
            assert guards["negative-prompt"] == {"text": text}
    assert guards["sld"]["preset"] == "weak"  # other options are the first concept's


def test_an_evaluation_inverts_a_token_for_each(tmp_path: Path) -> None:
    counts = {"prompts": 3, "keep_prompts": 1, "neighbour_prompts": 1, "inversion_prompts": 2}
    given = {"concept": "sword+balloon", "output": str(tmp_path), "evaluate": counts}
    plans = evaluation_plans(Session(resolve_settings(given)), [System()])
    inverted = [plan.scenario for plan in plans if plan.attack.name == "concept-inversion"]
    assert [(one.name, len(one.prompts)) for one in inverted if one.kind == "attack"] == [
        ("sword-direct", 2), ("balloon-direct", 2),
    ]  # fmt: skip


def test_names_that_clash_or_are_too_long_together_are_told() -> None:
    sword = load_concept("sword")
    one = sword.model_copy(update={"name": "a", "attacks": {"b-direct": sword.attacks["direct"]}})
    other = load_concept("balloon").model_copy(update={"name": "a-b", "attacks": {"direct": sword.attacks["direct"]}})
    with pytest.raises(DuoError, match="two prompt sets have one name") as raised:
        join([one, other])
    assert raised.value.got == "a-b-direct"
    with pytest.raises(DuoError, match="a name is too long"):
        join([one.model_copy(update={"name": "a" * 60}), other.model_copy(update={"name": "b" * 60})])
