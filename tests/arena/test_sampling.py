"""Numbers of one table are of images that were sampled alike: the others say how theirs were, and come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import duo_unlearn as duo
from duo_unlearn.report.read import read_contents
from duo_unlearn.report.status import read_status
from duo_unlearn.runs.results import Results
from duo_unlearn.session import Session

from .small_run import make_run, reopen, stamps

WHY = "its images have steps 4 where the settings have 3: `duo evaluate` or `duo attack` again"


def attack(run: Session, *names: str) -> Results:
    return duo.attack(run, names, prompts=2)[1]


def attacks_in(results: Results) -> set[Any]:
    return {e.attack for e in results.estimates if e.metric == "dsr"}


@pytest.mark.slow
def test_images_of_other_steps_have_no_number_until_they_are_the_settings_again(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"evaluate.steps": 4})
    folder = run.run.folder
    assert attacks_in(attack(run, "direct", "image-to-image")) == {None, "image-to-image", "worst case"}
    before = stamps(folder)
    results = duo.evaluate(reopen(folder, evaluate__steps=3))
    assert "image-to-image" not in attacks_in(results)
    assert {(a["system"], a["attack"], a["reason"]) for a in results.absent if a["attack"] == "image-to-image"} == {
        (system, "image-to-image", WHY) for system in ("original", "duo")
    }
    contents, status = read_contents(run.run), read_status(run.run)
    assert "image-to-image" not in {group.group.attack for group in contents.groups}
    assert {work.note for work in status.attacks if "image-to-image" in work.name} == {WHY}
    assert status.next is not None
    assert {"image-to-image", "worst case"} <= attacks_in(attack(reopen(folder, evaluate__steps=4), "direct"))
    after = stamps(folder)
    assert all(after[name] == time for name, time in before.items() if "image-to-image" in name)
