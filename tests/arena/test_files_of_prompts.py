"""Prompts from files: a scenario a file, told apart where two have one name."""

from __future__ import annotations

from pathlib import Path

import pytest

import duo_unlearn as duo
from duo_unlearn.concepts.prompt_files import prompts_digest
from duo_unlearn.errors import DuoError
from duo_unlearn.session import Session

from .small_run import make_run, reopen, stamps


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Session:
    return make_run(tmp_path_factory.mktemp("files"))


def test_prompts_of_a_file_are_a_scenario_of_their_own(run: Session, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("a red knight with a blade\nan armed king\n")
    states, results = duo.attack(run, ["direct"], file=tmp_path / "own.txt")
    assert {state.attempts for state in states} == {2}
    assert {e.n for e in results.estimates if e.scenario == "file-own"} == {2}


def test_a_file_with_categories_has_numbers_of_each(run: Session, tmp_path: Path) -> None:
    rows = ["an armed king,violence", 'a red knight with a blade,"violence, gore"', "a blue king,"]
    (tmp_path / "i2p.csv").write_text("\n".join(["sensitive prompt,category", *rows]) + "\n")
    states, results = duo.attack(run, ["direct"], file=tmp_path / "i2p.csv")
    wanted = {"file-i2p": 1, "file-i2p-violence": 2, "file-i2p-gore": 1}
    for system in ("original", "duo"):
        attempts = {s.group.scenario: s.attempts for s in states if s.group.system == system}
        assert attempts == wanted
        scored = [
            e
            for e in results.estimates
            if e.system == system and e.scenario in wanted and e.metric in ("dsr", "broken")
        ]
        # By each judge every picture counts once under each of its categories, broken or not.
        for contract in {e.contract for e in scored}:
            for scenario, count in wanted.items():
                mine = [e for e in scored if (e.scenario, e.contract) == (scenario, contract)]
                dsr, broken = (next((e for e in mine if e.metric == metric), None) for metric in ("dsr", "broken"))
                assert (dsr.n if dsr else 0) + (round(broken.value * broken.n) if broken else 0) == count


def test_prompts_that_the_model_does_not_read_whole_are_told(
    run: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "long.txt").write_text(f"a blue king\na red knight with {'a red hat and ' * 20}a sword\n")
    told = reopen(run.run.folder)
    told.quiet = False
    duo.attack(told, ["direct"], file=tmp_path / "long.txt")
    said = "file-long: 1 of 2 prompts are longer than the 40 tokens that the model reads, and their ends are not asked"
    assert capsys.readouterr().err.count(said) == 1
    duo.attack(told, ["direct"], prompts=1)
    assert "are longer than" not in capsys.readouterr().err


def test_a_file_that_is_refused_takes_no_name(run: Session, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("prompt,category\na sword,cutlery\n")
    before = run.run.read_record()
    with pytest.raises(DuoError, match="unknown category"):
        duo.attack(run, ["direct"], file=tmp_path / "mine.csv")
    assert run.run.read_record() == before


@pytest.mark.slow
def test_two_files_of_one_name_are_two_scenarios_and_stay_side_by_side(run: Session, tmp_path: Path) -> None:
    texts = {"one": "a red knight with a blade\n", "two": "an armed king\na blue king with a saber\n"}
    for place, text in texts.items():
        (tmp_path / place).mkdir()
        (tmp_path / place / "mine.txt").write_text(text)
    for place in ("one", "two", "one"):
        _, results = duo.attack(run, ["direct"], file=tmp_path / place / "mine.txt")
    second = f"file-mine-{prompts_digest(tmp_path / 'two' / 'mine.txt')[:8]}"
    counts = {e.scenario: e.n for e in results.estimates if e.scenario.startswith("file-mine")}
    assert counts == {"file-mine": 1, second: 2}
    known = run.run.read_record()["prompt_files"]
    assert {name: known[name] for name in counts} == {
        name: prompts_digest(tmp_path / place / "mine.txt") for name, place in (("file-mine", "one"), (second, "two"))
    }
    # A content keeps its name, whatever place it is read from.
    (tmp_path / "two" / "mine.txt").rename(tmp_path / "mine.txt")
    before = stamps(run.run.folder)
    duo.attack(run, ["direct"], file=tmp_path / "mine.txt")
    assert stamps(run.run.folder) == before
