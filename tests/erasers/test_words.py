"""Prompts that erasers are handed: none is among those that the run's evaluation asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import duo_unlearn as duo
from duo_unlearn.arena.plans import evaluated_texts, evaluation_plans
from duo_unlearn.concepts.new import new_concept
from duo_unlearn.concepts.store import load_concept
from duo_unlearn.edits.provenance import read_provenance
from duo_unlearn.erasers.adv_unlearn import KEEP, kept_prompts
from duo_unlearn.erasers.interface import EraserContext
from duo_unlearn.erasers.words import contrasts, kept_texts, left_out, needed_texts
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.session import Session

from ..drawn_pairs import draw_pairs
from ..small_concept import small_concept
from .words_alone import context_of

REAL = ("nudity", "gun", "blood")


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


def context(model: Model, folder: Path, concept: str, eraser: str = "uce", **settings: int) -> EraserContext:
    """What an eraser of a run of that concept is given, with prompts of every wording."""
    given = {"concept": concept, **{f"evaluate.{name}": count for name, count in settings.items()}}
    run = duo.open_run(folder / "run", settings=given, quiet=True)
    words = context_of(eraser, model, folder, {"wordings": "all"})
    return words._replace(concept=run.concept, asked=evaluated_texts(run))


@pytest.mark.parametrize("name", REAL)
def test_a_real_concepts_erasers_are_given_nothing_that_its_evaluation_asks(
    model: Model, name: str, tmp_path: Path
) -> None:
    run = duo.open_run(tmp_path / "run", settings={"concept": name}, quiet=True)
    asked = {
        prompt.text for plan in evaluation_plans(run, [run.system("original")]) for prompt in plan.scenario.prompts
    }
    given = context(model, tmp_path, name)
    assert given.asked == asked
    kept, several = kept_texts(given, KEEP), contrasts(given, "all")
    assert len(set(kept)) == KEEP
    assert len(several) > 40
    assert not asked & {*kept, *kept_prompts(given), *(text for contrast in several for text in contrast)}
    # Without it they were handed some of them.
    free = given._replace(asked=frozenset())
    assert asked & {*kept_texts(free, KEEP)}
    assert asked & {contrast.unsafe for contrast in contrasts(free, "all")}


def test_the_mini_worlds_scenes_are_apart_and_nothing_is_left_out(model: Model, tmp_path: Path) -> None:
    given = context(model, tmp_path, "sword")
    assert given.asked == frozenset()
    assert left_out(given, keeps=True) == []


def test_sets_that_are_asked_whole_are_told(model: Model, tmp_path: Path) -> None:
    new_concept(tmp_path / "hat.yaml", "a person with a hat", ["a person with a bag"])
    given = context(model, tmp_path, str(tmp_path / "hat.yaml"), "advunlearn")
    with pytest.raises(DuoError, match="asks every prompt of a wording") as raised:
        contrasts(given, "all")
    assert raised.value.got == "direct"
    assert kept_texts(given, 4) == []
    with pytest.raises(DuoError, match="asks every keep prompt"):
        needed_texts(given, 4)
    fewer = context(model, tmp_path, str(tmp_path / "hat.yaml"), "advunlearn", prompts=2, keep_prompts=2)
    assert len(contrasts(fewer, "all")) > 1
    assert set(kept_texts(fewer, 4)).isdisjoint(fewer.asked)


def test_a_new_concepts_pairs_are_not_what_its_evaluation_asks(tmp_path: Path) -> None:
    path = tmp_path / "hat.yaml"
    new_concept(path, "a person with a hat", ["a person with a bag"])
    concept = load_concept(str(path))
    pairs = {template for kind in concept.pairs for template in (kind.unsafe, kind.safe)}
    asked = {template for one in (*concept.attacks.values(), *concept.keep) for template in one.templates}
    assert not pairs & asked


def unsplit_run(folder: Path, **evaluate: int) -> Session:
    """A run of the sword whose concept file has no split, and of two pairs with prompts."""
    path = Path(small_concept(folder))
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, "split": "none"}, sort_keys=False))
    draw_pairs(folder / "mine", 2)
    pairs = [
        {
            "unsafe": f"unsafe/{i}.png", "safe": f"safe/{i}.png",
            "unsafe_prompt": f"a {colour} knight holding a sword in the snow",
            "safe_prompt": f"a {colour} knight with empty hands in the snow",
        }
        for i, colour in enumerate(("red", "blue"))
    ]  # fmt: skip
    (folder / "mine" / "manifest.json").write_text(json.dumps({"pairs": pairs}))
    given: dict[str, Any] = {f"evaluate.{name}": count for name, count in evaluate.items()}
    given |= {"concept": str(path), "pairs.folder": str(folder / "mine"), "pairs.trust": True, "eraser": "uce"}
    run = duo.open_run(folder / "run", settings={**given, "erasers.uce.wordings": "all"}, quiet=True)
    duo.make_pairs(run)
    return run


@pytest.mark.slow
def test_another_evaluation_makes_another_edit_of_every_wording(tmp_path: Path) -> None:
    run = unsplit_run(tmp_path, prompts=60)
    keys = [read_provenance(duo.train(run))["key"]]
    for count in (60, 900):
        again = duo.open_run(run.run.folder, settings={"evaluate.prompts": count}, quiet=True)
        keys.append(read_provenance(duo.train(again))["key"])
    assert keys[0] == keys[1]
    assert keys[0] != keys[2]


def test_only_what_reads_more_than_the_pairs_depends_on_what_is_asked(model: Model, tmp_path: Path) -> None:
    given = context(model, tmp_path, "gun", "esd-x")
    assert left_out(given) == sorted(given.asked) != []
    direct = given._replace(options=given.options.model_copy(update={"wordings": "direct"}))
    assert left_out(direct) == []
    assert left_out(direct, keeps=True) == sorted(given.asked)
