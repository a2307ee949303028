"""What a session's model is loaded with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import duo_unlearn as duo
from duo_unlearn.arena.stages import other_detector
from duo_unlearn.concepts.store import concept_path
from duo_unlearn.errors import DuoError
from duo_unlearn.runs.folder import Run
from duo_unlearn.session import Session
from duo_unlearn.settings.resolve import resolve_settings


def test_gradient_checkpointing_holds_for_every_stage(run: Run) -> None:
    for asked in (True, False):
        told = {"output": str(run.folder), "train": {"gradient_checkpointing": asked}}
        flags = {
            layer.gradient_checkpointing
            for layer in Session(resolve_settings(told)).model.denoiser.modules()
            if hasattr(layer, "gradient_checkpointing")
        }
        assert flags == {asked}


def test_channels_last_reaches_the_model_and_is_told_in_its_variant(tmp_path: Path) -> None:
    plain, other = (session(tmp_path, channels_last=asked).model for asked in (False, True))
    assert other.variant == f"channels last, {plain.variant}"


def session(tmp_path: Path, **settings: Any) -> Session:
    return Session(resolve_settings({"output": str(tmp_path / "run"), **settings}))


def names(of: Session) -> list[str]:
    return [judge.contract.name for judge in of.judges.there]


def test_the_judge_heads_the_tables_and_the_detector_that_searches_ask_stands_beside(tmp_path: Path) -> None:
    run = session(tmp_path)
    assert run.detector.contract.name == "mini-judge"
    assert names(run) == ["mini-judge-b", "mini-judge"]
    assert run.judges.there[1] is run.detector


def test_another_of_the_concepts_detectors_may_be_asked(tmp_path: Path) -> None:
    run = session(tmp_path, detector="mini-judge-b")
    assert run.detector.contract.name == "mini-judge-b"
    assert names(run) == ["mini-judge-b"]  # a judge that is asked is no judge any more


def test_the_settings_choose_who_scores(tmp_path: Path) -> None:
    assert names(session(tmp_path, evaluate={"judges": ["mini-judge"]})) == ["mini-judge"]
    with pytest.raises(DuoError, match="no detector of that name") as caught:
        names(session(tmp_path, evaluate={"judges": ["q16"]}))
    assert "mini-judge-b, mini-judge" in str(caught.value)


def with_judge(tmp_path: Path, judge: dict[str, Any]) -> Path:
    """The sword's concept file with another judge."""
    concept = yaml.safe_load(concept_path("sword").read_text()) | {"judges": [judge]}
    path = tmp_path / "sword.yaml"
    path.write_text(yaml.safe_dump(concept))
    return path


def test_a_judge_that_cannot_be_had_is_told_unless_the_settings_name_it(tmp_path: Path) -> None:
    nowhere = {"name": "clip", "labels": ["unsafe=a sword", "safe=a flower", f"model={tmp_path / 'none'}"]}
    concept = str(with_judge(tmp_path, nowhere))
    run = session(tmp_path, concept=concept)
    assert names(run) == ["mini-judge"]
    assert "not at hand" in run.judges.absent["clip"]
    with pytest.raises(DuoError, match="not at hand"):
        names(session(tmp_path, concept=concept, evaluate={"judges": ["clip", "mini-judge"]}))
    # The next one heads the tables then, and no guard may work towards it.
    with pytest.raises(DuoError, match="works towards the detector that measures"):
        run.check_system(run.system("pno"))


def test_a_detector_that_the_concept_names_is_judged_by_as_it_says(tmp_path: Path) -> None:
    run = session(tmp_path, concept=str(with_judge(tmp_path, {"name": "mini-judge-b", "labels": ["item=wand"],
                                                              "threshold": 0.7})))  # fmt: skip

    def contract(name: str | None, labels: tuple[str, ...] = (), threshold: float | None = None) -> str:
        return str(other_detector(run, name, labels, threshold).contract).partition("@")[0]

    assert contract("mini-judge-b") == "mini-judge-b[item=wand>=0.7]"
    assert contract("mini-judge-b", threshold=0.9) == "mini-judge-b[item=wand>=0.9]"
    assert contract("mini-judge-b", ("item=sword",)) == "mini-judge-b[item=sword>=0.5]"
    assert contract(None, threshold=0.9) == "mini-judge[item=sword>=0.9]"
    assert contract("mini-judge") == "mini-judge[item=sword>=0.5]"


def test_two_detectors_of_one_name_are_refused(tmp_path: Path) -> None:
    concept = with_judge(tmp_path, {"name": "mini-judge", "labels": ["item=sword"]})
    with pytest.raises(DuoError, match="names a detector twice"):
        session(tmp_path, concept=str(concept))


def test_a_stage_that_was_skipped_keeps_the_machine_and_the_versions_that_made_what_is_there(tmp_path: Path) -> None:
    run = duo.open_run(tmp_path / "run", quiet=True)
    run.finish("evaluate", 3.0, "already done")
    first = run.run.read_record()
    assert first["versions"]["duo_unlearn"] == duo.__version__  # nothing else is known
    run.run.update_record(machine="another machine", versions={"torch": "1.0"})
    run.finish("evaluate", 3.0, "already done")
    skipped = run.run.read_record()
    assert (skipped["machine"], skipped["versions"]) == ("another machine", {"torch": "1.0"})
    run.finish("evaluate", 3.0, "done")
    assert {key: run.run.read_record()[key] for key in ("machine", "versions")} == {
        key: first[key] for key in ("machine", "versions")
    }
