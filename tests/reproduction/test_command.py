"""`duo reproduce` on a file that was sent: its page, and an exit code for CI."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from duo_unlearn.cli.main import main
from duo_unlearn.reproduction.protocol import load_protocol
from duo_unlearn.reproduction.results import Measured, Reproduction, rows_of, write_reproduction


def sent(folder: Path, off: float) -> Path:
    """A results file of mini-sword where every number is as much below the published one, with a narrow interval."""
    protocol = load_protocol("mini-sword")
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


def test_numbers_that_agree_end_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(["mini-sword", "--results", str(sent(tmp_path, 0.001))], monkeypatch) == 0
    rows = len(load_protocol("mini-sword").published)
    assert f"mini-sword: {rows} published numbers: agrees {rows}." in capsys.readouterr().out


def test_nothing_measured_is_no_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(["mini-sword", "--results", str(sent(tmp_path, 2.0))], monkeypatch) == 1


def test_the_plan_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ended(["mini-sword", "--dry-run"], monkeypatch) == 0
    assert "what must be at hand:" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
