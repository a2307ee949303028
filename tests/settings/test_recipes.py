"""The recipe `robust`: what it gives for the mini model, and what a user may still say on top."""

from __future__ import annotations

from pathlib import Path

import pytest

from duo_unlearn.erasers.duo.settings import ObjectiveSettings, TrainSettings
from duo_unlearn.erasers.robust.recipe import said_of_duo
from duo_unlearn.erasers.robust.settings import RobustSettings
from duo_unlearn.erasers.uce import UceSettings
from duo_unlearn.errors import DuoError
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.check import check_family
from duo_unlearn.settings.resolve import describe, for_another_run, resolve_settings
from duo_unlearn.settings.tree import Settings, write_settings
from duo_unlearn.storage.forms import deciding

from ..families import small_models


def robust_options(settings: Settings) -> RobustSettings:
    return RobustSettings.model_validate(settings.erasers["robust-duo"])


@pytest.mark.parametrize("concept", ["sword", "balloon", "sword+balloon"])
def test_the_robust_recipe_is_robust_duo_on_a_floor(tmp_path: Path, concept: str) -> None:
    given = {"recipe": "robust", "concept": concept, "output": str(tmp_path)}
    settings = resolve_settings(given)
    assert (settings.eraser, settings.floor) == ("robust-duo", "uce")
    options = RobustSettings.model_validate(settings.erasers["robust-duo"])
    assert (options.beta, options.pairing) == (20, "unpaired")
    assert settings.pairs.guidance == 5.0  # what is recommended for the rest stays
    # The floor is UCE as the development runs had it, whatever is recommended for UCE alone.
    assert UceSettings.model_validate(settings.erasers["uce"]) == UceSettings()
    assert "robust DUO" in describe(settings).splitlines()[0]
    mine = resolve_settings({**given, "floor": None, "erasers": {"robust-duo": {"beta": 7}}})
    assert mine.floor is None
    assert mine.erasers["robust-duo"]["beta"] == 7
    assert mine.erasers["robust-duo"]["learning_rate"] == options.learning_rate


def test_a_recipe_that_is_asked_for_anew_takes_the_place_of_the_runs(tmp_path: Path) -> None:
    given = {"concept": "sword", "output": str(tmp_path)}
    write_settings(tmp_path / "settings.yaml", resolve_settings({**given, "seed": 5}))
    robust = resolve_settings({**given, "recipe": "robust"})
    assert (robust.eraser, robust.floor, robust.seed) == ("robust-duo", "uce", 5)
    write_settings(tmp_path / "settings.yaml", robust)
    assert resolve_settings(given).eraser == "robust-duo"  # a later stage needs the folder alone
    back = resolve_settings({**given, "recipe": "recommended"})
    assert (back.eraser, back.floor, back.erasers) == ("duo", None, resolve_settings({"concept": "sword"}).erasers)


@pytest.mark.parametrize("recipe", ["recommended", "robust"])
def test_numbers_of_the_paper_give_way_to_another_recipe(tmp_path: Path, recipe: str) -> None:
    given = {"concept": "nudity", "model": str(small_models.sd1(tmp_path / "model"))}
    path = tmp_path / "run" / "settings.yaml"
    for own in ({"rank": 8}, {"rank": 8, "beta": 250}):
        fresh = resolve_settings({**given, "recipe": recipe, "train": own})
        write_settings(path, resolve_settings({**given, "recipe": "paper", "train": own}))
        back = resolve_settings({"output": str(path.parent), "recipe": recipe})
        # What was said of the run stays; lr and λ are no more those that follow β.
        assert (back.recipe, back.eraser, back.train) == (recipe, fresh.eraser, fresh.train)


def test_what_is_said_of_duos_objective_is_said_of_robust_duos(tmp_path: Path) -> None:
    given = {"recipe": "robust", "output": str(tmp_path), "train": {"beta": 77, "max_train_steps": 9}}
    options = resolve_settings(given).erasers["robust-duo"]
    assert (options["beta"], options["max_train_steps"], options["pairing"]) == (77, 9, "unpaired")


def test_what_is_said_later_is_above_what_the_run_has(tmp_path: Path) -> None:
    given = {"recipe": "robust", "output": str(tmp_path)}
    write_settings(tmp_path / "settings.yaml", resolve_settings(given))
    options = resolve_settings({"output": str(tmp_path), "train": {"beta": 77}}).erasers["robust-duo"]
    assert (options["beta"], options["hold_weight"]) == (77, 30)  # of a concept file, and not of a rule
    both = {"output": str(tmp_path), "train": {"beta": 77}, "erasers": {"robust-duo": {"beta": 5}}}
    assert resolve_settings(both).erasers["robust-duo"]["beta"] == 5


def test_where_the_weight_of_what_stays_is_not_given_it_follows_beta(tmp_path: Path) -> None:
    def options(**given: object) -> RobustSettings:
        return RobustSettings.model_validate(given)

    assert [options(beta=100).hold_weight, options(beta=100, hold_weight=0).hold_weight] == [150, 0]
    # How it was said decides nothing: the same number is the same training.
    assert deciding(options(beta=20)) == deciding(options(beta=20, hold_weight=30))
    # An edit that was made before there was this option is known again.
    assert "neighbours" not in deciding(options())
    assert deciding(options(neighbours=2))["neighbours"] == 2
    given = {"concept": "sword", "eraser": "robust-duo", "output": str(tmp_path)}
    null = resolve_settings({**given, "erasers": {"robust-duo": {"beta": 7, "hold_weight": None}}})
    assert robust_options(null).hold_weight == 10.5
    said = said_of_duo(TrainSettings(rank=8), {"rank": 8, "captions": "none"})
    assert said == {"erasers": {"robust-duo": {"rank": 8}}}


@pytest.mark.parametrize("option", sorted(set(TrainSettings.model_fields) - set(ObjectiveSettings.model_fields)))
def test_no_option_of_duos_training_is_dropped_in_silence(tmp_path: Path, option: str) -> None:
    others = {"captions": "dual", "caption_dropout": 0.5, "report_to": "wandb"}
    given = {"recipe": "robust", "output": str(tmp_path), "train": {option: others.get(option, 7)}}
    with pytest.raises(DuoError, match="has no such option") as raised:
        resolve_settings(given)
    assert f"train.{option}=" in str(raised.value.got)
    assert len(str(raised.value).splitlines()) == 3
    (tmp_path / "run.yaml").write_text(f"recipe: robust\noutput: {tmp_path}\ntrain: {given['train']}\n")
    with pytest.raises(DuoError, match="has no such option"):
        resolve_settings({}, tmp_path / "run.yaml")
    assert resolve_settings({**given, "recipe": "recommended"}).eraser == "duo"


def test_what_changes_nothing_is_no_fault(tmp_path: Path) -> None:
    # A concept's recommendation was said by nobody; nor was what `duo check` printed, which is a settings file.
    given = {"recipe": "robust", "output": str(tmp_path / "run")}
    (tmp_path / "run.yaml").write_text(describe(resolve_settings(given)))
    again, first = resolve_settings({}, tmp_path / "run.yaml"), resolve_settings(given)
    assert (again.eraser, again.floor, robust_options(again)) == ("robust-duo", "uce", robust_options(first))
    # What the training does anyway may be said.
    anyway = {"preview_steps": 0, "keep_checkpoints": 0, "gradient_accumulation_steps": 1}
    assert resolve_settings({**given, "train": anyway}).eraser == "robust-duo"


def test_a_run_of_the_recipe_on_pairs_of_ones_own_is_handed_on(tmp_path: Path) -> None:
    first = resolve_settings({"recipe": "robust", "output": str(tmp_path / "a"), "pairs": {"folder": str(tmp_path)}})
    other = resolve_settings({**for_another_run(first), "output": str(tmp_path / "b")})
    assert (other.recipe, other.floor, other.pairs.folder) == ("robust", "uce", None)
    assert robust_options(other) == robust_options(first)


def test_shares_are_a_whole_once_all_has_been_said(tmp_path: Path) -> None:
    mixture = {"unsafe": 0.5, "empty": 0.1, "random": 0.1, "search": 0.1, "bank": 0.2}
    robust = {"bank": "a.safetensors", "captions": mixture}
    first = resolve_settings({"output": str(tmp_path), "eraser": "robust-duo", "erasers": {"robust-duo": robust}})
    write_settings(tmp_path / "settings.yaml", first)
    # Neither is a whole by itself: the run has the rest.
    later = {"bank": "b.safetensors", "captions": {"unsafe": 0.4, "search": 0.2}}
    settings = resolve_settings({"output": str(tmp_path), "erasers": {"robust-duo": later}})
    check_family(settings, "mini")
    with pytest.raises(DuoError, match="cannot be used so"):
        check_family(resolve_settings({"output": str(tmp_path), "erasers": {"robust-duo": {"bank": None}}}), "mini")


@pytest.mark.parametrize("concept", ["sword", "balloon"])
def test_robust_duo_without_the_recipe_has_its_settings_too(concept: str) -> None:
    given = {"concept": concept, "eraser": "robust-duo"}
    own, recipe = resolve_settings(given), resolve_settings({"concept": concept, "recipe": "robust"})
    assert own.floor is None
    assert own.erasers["robust-duo"] == recipe.erasers["robust-duo"]


def test_the_weight_of_what_must_stay_follows_beta_also_where_a_run_has_it_written_down(tmp_path: Path) -> None:
    given = {"recipe": "robust", "concept": "nudity", "model": str(small_models.sd1(tmp_path / "model"))}
    first = resolve_settings({**given, "output": str(tmp_path / "run")})
    options = {**first.erasers["robust-duo"], "hold_weight": 1.5 * robust_options(first).beta}
    old = first.model_copy(update={"erasers": {**first.erasers, "robust-duo": options}})
    write_settings(Run(tmp_path / "run").settings, old)
    again = resolve_settings({"output": str(tmp_path / "run"), "train": {"beta": 2000}})
    assert (robust_options(again).beta, robust_options(again).hold_weight) == (2000, 3000)


def test_another_eraser_beside_the_recipe_keeps_its_own_options_in_another_run(tmp_path: Path) -> None:
    given = {"recipe": "robust", "eraser": "duo", "floor": None, "output": str(tmp_path), "train": {"preview_steps": 0}}
    assert for_another_run(resolve_settings(given))["train"]["preview_steps"] == 0
