"""The paper's recipe, the shipped real concepts, and a new concept from a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from duo_unlearn.concepts.store import load_concept, shipped_concepts
from duo_unlearn.erasers.duo.paper import explain
from duo_unlearn.erasers.duo.settings import TrainSettings
from duo_unlearn.errors import DuoError
from duo_unlearn.settings.resolve import describe, resolve_settings
from duo_unlearn.settings.tree import as_yaml

SD14, SD3 = "CompVis/stable-diffusion-v1-4", "stabilityai/stable-diffusion-3-medium-diffusers"
VIOLENCE = ("blood", "suffering", "gun", "horror")


def given(tmp_path: Path, **more: object) -> dict[str, object]:
    return {"model": SD14, "concept": "nudity", "recipe": "paper", "output": str(tmp_path / "run")} | more


@pytest.mark.parametrize(
    ("concept", "model", "beta", "rate", "prior", "steps"),
    # method.md §3, the table of the authors' scripts.
    [("nudity", SD14, 500, 6e-5, 5e6, 1000), ("nudity", SD3, 500, 6e-6, 5e6, 1000)]
    + [(name, SD14, 1000, 3e-5, 1e7, 500) for name in VIOLENCE],
)
def test_the_papers_numbers(
    tmp_path: Path, concept: str, model: str, beta: float, rate: float, prior: float, steps: int
) -> None:
    for recipe in ("paper", "recommended"):
        train = resolve_settings(given(tmp_path, concept=concept, model=model, recipe=recipe)).train
        assert (train.beta, train.learning_rate, train.prior_weight, train.max_train_steps) == (
            beta,
            rate,
            prior,
            steps,
        )
    paper = resolve_settings(given(tmp_path, concept=concept, model=model)).train
    assert (paper.share_timestep, paper.captions, paper.pairing, paper.lr_scheduler) == (
        False,
        "none",
        "paired",
        "constant",
    )


@pytest.mark.parametrize(
    ("beta", "rate", "prior"), [(100, 3e-4, 1e6), (250, 1.2e-4, 2.5e6), (1000, 3e-5, 1e7), (2000, 1.5e-5, 2e7)]
)
def test_rate_and_prior_follow_beta_and_it_is_printed(tmp_path: Path, beta: float, rate: float, prior: float) -> None:
    settings = resolve_settings(given(tmp_path, train={"beta": beta}))
    assert (settings.train.learning_rate, settings.train.prior_weight) == (rate, prior)
    assert f"β {beta:g}, lr = 0.0003·100/β = {rate:g}, λ = 1e6·β/100 = {prior:g}" in describe(settings)


def test_a_users_number_is_never_changed(tmp_path: Path) -> None:
    train = resolve_settings(given(tmp_path, train={"beta": 250, "learning_rate": 1e-5})).train
    assert (train.learning_rate, train.prior_weight) == (1e-5, 2.5e6)
    told = describe(resolve_settings(given(tmp_path, train={"beta": 250, "learning_rate": 1e-5})))
    assert "given in place of that: lr 1e-05" in told
    plain = resolve_settings(given(tmp_path, recipe="recommended", train={"beta": 250})).train
    assert plain.learning_rate == 6e-5


def test_a_new_beta_moves_the_rates_of_a_run_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.yaml").write_text(as_yaml(resolve_settings(given(tmp_path))))
    train = resolve_settings({"output": str(tmp_path / "run"), "train": {"beta": "1e2"}}).train
    assert (train.beta, train.learning_rate, train.prior_weight) == (100, 3e-4, 1e6)
    again = resolve_settings({"output": str(tmp_path / "run")}).train
    assert (again.beta, again.learning_rate) == (500, 6e-5)


@pytest.mark.parametrize(("concept", "model"), [("nudity", "mini"), ("sword", SD14), ("blood", SD3)])
def test_what_the_paper_did_not_do_has_no_recipe(tmp_path: Path, concept: str, model: str) -> None:
    with pytest.raises(DuoError, match="the paper has no settings"):
        resolve_settings(given(tmp_path, concept=concept, model=model))


def test_the_papers_concepts_are_there_with_its_counts() -> None:
    counts = {name: sum(kind.count for kind in load_concept(name).pairs) for name in ("nudity", *VIOLENCE)}
    assert counts == {"nudity": 64} | dict.fromkeys(VIOLENCE, 32)
    assert {"nudity", *VIOLENCE, "sword", "balloon"} == set(shipped_concepts())
    for name in ("nudity", *VIOLENCE):
        concept = load_concept(name)
        assert concept.sensitive
        people = {word for value in concept.fill.values() for word in value} & {"woman", "man"}
        assert people == {"woman", "man"}
        asked = [kind.unsafe for kind in concept.pairs if "{person}" in kind.unsafe]
        assert all("adult" in prompt for prompt in asked)


@pytest.mark.parametrize(("family", "marked"), [("sd1", False), ("sd3", True)])
def test_numbers_that_belong_to_weighed_margins_are_marked(family: str, *, marked: bool) -> None:
    assert ("weighed by σ²" in explain(family, TrainSettings(beta=500))) == marked
