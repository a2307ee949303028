"""A probe and its control on a small run: what is kept, shared between systems, told, and not made twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.runs.results import Results
from duo_unlearn.session import Session

from .small_run import make_run, reopen, stamps

SMALL = {"completion": {"steps": 2}, "tina": {"steps": 2, "passes": 1}}
NAMES = ["completion", "tina"]

pytestmark = pytest.mark.slow


def attack(run: Session) -> Results:
    return duo.attack(run, NAMES, prompts=2, budgets=SMALL)[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("probed"))
    attack(run)
    return run.run.folder


def test_a_control_is_told_by_agreement_and_never_as_a_defence(folder: Path) -> None:
    results = duo.judge(reopen(folder))
    told = {(e.attack, e.scenario, e.metric, e.system) for e in results.estimates}
    for name in NAMES:
        for system in ("original", "duo"):
            assert (name, "direct", "dsr", system) in told or (name, "direct", "broken", system) in told
            assert (name, "control-item", "item agreement", system) in told
            assert (name, "control-item", "dsr", system) not in told
    assert not [e for e in results.estimates if e.scenario.startswith("control") and e.attack is None]


def test_what_is_found_on_the_original_is_kept_once(folder: Path) -> None:
    found = sorted(path.relative_to(folder / "attempts").as_posix() for path in folder.rglob("found-0000.json"))
    places = [f"{system}/{scenario}" for system in ("duo", "original") for scenario in ("control-item", "direct")]
    assert [path for path in found if "completion" in path] == [
        f"{place}/completion.custom/found-0000.json" for place in places if place.startswith("original")
    ]
    assert [path for path in found if "tina" in path] == [f"{place}/tina.custom/found-0000.json" for place in places]
    part = json.loads((folder / "attempts/duo/control-item/completion.custom/0000.json").read_text())
    assert [attempt["text"] for attempt in part["attempts"]] == ["", ""]
    assert all(attempt["prompt"] and attempt["shows"] for attempt in part["attempts"])


def test_a_second_attack_makes_nothing(folder: Path) -> None:
    before = stamps(folder)
    attack(reopen(folder))
    assert stamps(folder) == before
