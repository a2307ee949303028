"""`duo reproduce` on a file that was sent: its page, and an exit code for CI."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from duo_unlearn.cli.main import main
from duo_unlearn.reproduction.protocol import load_protocol
from duo_unlearn.reproduction.results import Measured, Reproduction, read_reproduction, rows_of, write_reproduction

from ..concepts.test_captions import coco


def sent(folder: Path, off: float, **changes: Any) -> Path:
    """A results file of mini-sword where every number is as much below the published one, with a narrow interval.

    changes: fields of the protocol that are others.
    """
    protocol = load_protocol("mini-sword").model_copy(update=changes)
    found = [
        Measured(
            beta=row.beta, concept="sword", metric=row.metric, system="duo", scenario=row.scenario, attack=row.attack,
            preset=row.preset, value=row.value - off, low=row.value - off, high=row.value - off, n=9,
            contract=row.judges[0],
        )
        for row in protocol.published
        if row.value >= off
    ]  # fmt: skip
    content = Reproduction(
        version=1, protocol=protocol, protocol_sha256=protocol.digest, finished="", machine="", versions={}, base="",
        model="mini", seed=3, changes=[], concepts={}, judges=["mini-judge-b"], files=[],
        rows=rows_of(protocol, found), measured=found,
        not_measured=[],
    )  # fmt: skip
    write_reproduction(folder / "sent.json", content)
    return folder / "sent.json"


def ended(words: list[str], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["duo", "reproduce", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def test_a_number_that_differs_is_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sent(tmp_path, 0.5)
    assert ended(["mini-sword", "--results", str(path)], monkeypatch) == 1
    assert "| **differs** |" in capsys.readouterr().out
    assert ended(["sd14-nudity", "--results", str(path)], monkeypatch) == 1
    assert "is of another protocol than sd14-nudity" in capsys.readouterr().err
    # A plan is not of what was sent.
    assert ended(["mini-sword", "--results", str(path), "--dry-run"], monkeypatch) == 1
    assert "give one of them" in capsys.readouterr().err
    assert ended(["mini-sword", "--results", str(path), "--seed", "3", "--set", "train.rank=4"], monkeypatch) == 1
    assert "Got: --seed, --set" in capsys.readouterr().err


def test_numbers_that_agree_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(["mini-sword", "--results", str(sent(tmp_path, 0.001))], monkeypatch) == 0
    rows = len(load_protocol("mini-sword").published)
    assert f"mini-sword: {rows} published numbers: agrees {rows}." in capsys.readouterr().out


def test_nothing_measured_is_no_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(["mini-sword", "--results", str(sent(tmp_path, 2.0))], monkeypatch) == 1


def test_a_tolerance_that_was_widened_is_another_protocol_whatever_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row.model_copy(update={"tolerance": 5.0}) for row in load_protocol("mini-sword").published]
    path = sent(tmp_path, 0.5, published=tuple(rows))
    assert ended(["mini-sword", "--results", str(path)], monkeypatch) == 1
    captured = capsys.readouterr()
    assert "is of another protocol than mini-sword" in captured.err
    assert len(captured.err.splitlines()) == 3
    assert captured.out == ""


def test_other_judges_alone_are_no_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = read_reproduction(sent(tmp_path, 0.001))
    found = [one.model_copy(update={"contract": "someone-else"}) for one in content.measured]
    rows = rows_of(content.protocol, found)
    write_reproduction(tmp_path / "sent.json", content.model_copy(update={"measured": found, "rows": rows}))
    assert ended(["mini-sword", "--results", str(tmp_path / "sent.json")], monkeypatch) == 1


def test_where_nothing_was_published_the_page_says_that_nothing_was_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sent(tmp_path, 0.001, published=())
    protocol = read_reproduction(path).protocol
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(protocol.model_dump(mode="json")))
    assert ended([str(tmp_path / "own.yaml"), "--results", str(path)], monkeypatch) == 0
    assert "no published number is at hand, so nothing was compared." in capsys.readouterr().out


def test_a_missing_interval_is_three_lines_and_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sent(tmp_path, 0.001)
    content = json.loads(path.read_text())
    del content["measured"][0]["low"]
    path.write_text(json.dumps(content))
    assert ended(["mini-sword", "--results", str(path)], monkeypatch) == 1
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), lines[0][:7]) == (3, "Error: ")
    assert "measured.0.low: missing" in lines[1]


def test_captions_of_another_year_are_three_lines_and_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = coco(tmp_path, 3, info={"year": 2017})
    assert ended(["sd14-nudity", "--captions", str(path)], monkeypatch) == 1
    lines = capsys.readouterr().err.splitlines()
    assert (len(lines), lines[0][:7]) == (3, "Error: ")
    assert "2017, not 2014" in lines[1]
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_the_plan_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ended(["mini-sword", "--dry-run"], monkeypatch) == 0
    assert "what must be at hand:" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
