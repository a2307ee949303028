"""What is said of a number beside a published one, by hand; and what a results file may not hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.schemas import DOCS, text

from duo_unlearn.errors import DuoError
from duo_unlearn.reproduction.page import as_text, verdict_line
from duo_unlearn.reproduction.protocol import Protocol, Published, load_protocol, protocol_names
from duo_unlearn.reproduction.reproduce import RESULTS, _earlier
from duo_unlearn.reproduction.results import (
    Measured,
    Number,
    Reproduction,
    compared,
    read_reproduction,
    read_sent,
    rows_of,
    write_reproduction,
)


def published(**given: Any) -> Published:
    usual = {"metric": "dsr", "scenario": "direct", "beta": 20, "value": 0.9, "tolerance": 0.1, "source": "a table"}
    return Published.model_validate({**usual, **given})


def number(value: float, low: float, high: float) -> Number:
    return Number(value=value, low=low, high=high, n=100, contract="judge@1")


def measured(value: float, **given: Any) -> Measured:
    usual = {
        "beta": 20, "concept": "sword", "metric": "dsr", "system": "duo", "scenario": "direct", "attack": None,
        "preset": None, "low": value - 0.02, "high": value + 0.02, "n": 100, "contract": "judge[item=sword]@1",
    }  # fmt: skip
    return Measured.model_validate({**usual, "value": value, **given})


def protocol(*rows: Published) -> Protocol:
    return Protocol(
        name="small", title="A protocol", source="here", model="mini", concepts=("sword",), betas=(20,), published=rows
    )


def reproduction(*rows: Published, found: list[Measured] | None = None) -> Reproduction:
    chosen = protocol(*rows)
    there = [measured(0.9)] if found is None else found
    return Reproduction(
        version=1, protocol=chosen, protocol_sha256=chosen.digest, finished="2026-01-01", machine="a CPU",
        versions={"torch": "2"}, base="ab", model="mini", seed=3, changes=[], concepts={"sword": "cd"},
        judges=["judge[item=sword]@1"], files=[], rows=rows_of(chosen, there), measured=there, not_measured=[],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ((0.90, 0.82, 0.98), "agrees"),
        ((0.80, 0.80, 1.00), "agrees"),  # the tolerance's ends belong to it
        ((0.90, 0.70, 0.99), "compatible"),
        ((0.78, 0.70, 0.85), "undecided"),
        ((0.70, 0.60, 0.79), "differs"),
        ((1.10, 1.01, 1.20), "differs"),  # above it too
    ],
)
def test_the_verdict_on_090_within_010(ours: tuple[float, float, float], verdict: str) -> None:
    assert compared(published(), number(*ours)) == verdict


def test_a_row_is_of_the_same_beta_place_and_attack() -> None:
    there = [
        measured(0.1, beta=10), measured(0.2, scenario="long"), measured(0.3, attack="p4d", preset="paper"),
        measured(0.4, beta=None, system="original"), measured(0.9),
    ]  # fmt: skip
    (row,) = rows_of(protocol(published()), there)
    assert row.ours is not None
    assert row.ours.value == 0.9


def test_the_original_is_of_no_beta() -> None:
    there = [measured(0.9), measured(0.4, beta=None, system="original")]
    (row,) = rows_of(protocol(published(beta=None)), there)
    assert row.ours is not None
    assert (row.ours.value, row.verdict) == (0.4, "differs")


def test_a_change_is_from_the_original() -> None:
    there = [measured(0.305), measured(0.31, beta=None, system="original")]
    (row,) = rows_of(protocol(published(change=True, value=-0.004, tolerance=0.04)), there)
    assert row.ours is not None
    assert row.ours.value == pytest.approx(-0.005)
    assert row.ours.low == pytest.approx(-0.005 - 0.02 * 2**0.5)  # both intervals, ± 0.02 each, as if independent
    assert row.ours.high == pytest.approx(-0.005 + 0.02 * 2**0.5)
    assert (row.ours.of_original, row.verdict) == (0.31, "agrees")


def test_a_change_from_nothing_is_not_measured() -> None:
    (row,) = rows_of(protocol(published(change=True, value=0, tolerance=0.03)), [measured(0.305)])
    assert (row.ours, row.verdict) == (None, "not measured")


def test_another_judge_stands_beside_nothing() -> None:
    (row,) = rows_of(protocol(published(judges=("nudenet",))), [measured(0.9)])
    assert (row.verdict, row.ours is not None) == ("not comparable", True)
    assert "nudenet" in row.reason
    (row,) = rows_of(protocol(published(judges=("judge[",))), [measured(0.1, contract="clip@2"), measured(0.9)])
    assert row.verdict == "agrees"


def test_nothing_measured_is_absent() -> None:
    (row,) = rows_of(protocol(published()), [])
    assert (row.ours, row.verdict) == (None, "not measured")


def test_a_file_goes_round(tmp_path: Path) -> None:
    whole = reproduction(published(), published(scenario="long", source="another"))
    write_reproduction(tmp_path / "a.json", whole)
    assert read_reproduction(tmp_path / "a.json") == whole
    assert verdict_line(whole) == "small: 2 published numbers: agrees 1, not measured 1"
    assert "| 90.0 % [88.0 %, 92.0 %] | 100 | judge[item=sword]@1 | agrees |" in as_text(whole)


def test_what_is_absent_for_one_reason_is_one_point() -> None:
    whole = reproduction(published())
    absent = [f"β {beta}, sword, fid, {name}: too few" for beta in (20, 50) for name in ("oar", "wand")]
    absent += ["β 20, sword, lpips, oar: no network", "captions: no --captions", "β 20, sword, lpips, oar: no network"]
    whole = whole.model_copy(update={
        "protocol": whole.protocol.model_copy(update={"betas": (20, 50)}), "not_measured": absent,
    })  # fmt: skip
    points = as_text(whole).partition("## What was not measured\n\n")[2].splitlines()
    assert points == [
        "* sword, fid, oar; sword, fid, wand: too few",
        "* β 20, sword, lpips, oar: no network",
        "* captions: no --captions",
    ]


def broken(change: Any) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(reproduction(published()).model_dump_json())
    change(content)
    return content


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["rows"][0]["ours"].pop("low"), "rows.0.ours.low: missing"),
        (lambda c: c["measured"][0].pop("high"), "measured.0.high: missing"),
        (lambda c: c["rows"][0]["ours"].update(low=0.95), "does not hold the value"),
        (lambda c: c["rows"][0].update(verdict="differs"), "the measured numbers say 'agrees'"),
        (lambda c: c["rows"][0].update(verdict="not comparable"), "the measured numbers say 'agrees'"),
        (lambda c: c["rows"][0].update(verdict="not measured", ours=None), "the measured numbers say 'agrees'"),
        (lambda c: c["rows"][0]["ours"].update(n=10_000), "the measured numbers say 'agrees'"),
        (lambda c: c["measured"][0].update(value=0.5, low=0.4, high=0.6), "the measured numbers say 'differs'"),
        (lambda c: c["measured"][0].update(high=1.2), "a share lies between 0 and 1"),
        (lambda c: c["measured"][0].update(low=0.95), "does not hold the value"),
        (lambda c: c["protocol"]["published"][0].update(tolerance=0.5), "a tolerance was changed afterwards"),
        (lambda c: c["rows"].clear(), "not those of the protocol"),
        (lambda c: c.update(version=2), "version 2"),
        (lambda c: c.pop("version"), "version None"),
        (lambda c: c.update(extra=1), "unknown key 'extra'"),
        (lambda c: c["rows"][0]["ours"].update(value=float("nan")), "finite"),
    ],
)
def test_what_a_file_may_not_hold(tmp_path: Path, change: Any, said: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(broken(change)))
    with pytest.raises(DuoError) as caught:
        read_reproduction(tmp_path / "a.json")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


@pytest.mark.parametrize("name", protocol_names())
def test_shipped_protocols(name: str) -> None:
    found = load_protocol(name)
    assert found.name == name
    assert found.departures  # nobody has run exactly what the authors ran


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("concepts: [nothing]", "unknown concept"),
        ("attacks: [{name: magic, prompts: 2}]", "magic is none of"),
        ("published: [{metric: dsr, scenario: direct, beta: 7, value: 1, tolerance: 1, source: a}]", "7 is not among"),
        ("published: [{metric: dsr, scenario: direct, value: 1, source: a}]", "tolerance: missing"),
        ("published: [{metric: drs, scenario: direct, value: 1, tolerance: 1, source: a}]", "drs is no metric"),
        ("published: [{metric: dsr, scenario: dirct, value: 1, tolerance: 1, source: a}]", "dirct is no prompt set"),
        ("betas: [20, 20]", "betas: one is named twice"),
        ("betas: [0]", "greater than 0"),
        ("published: [{metric: dsr, scenario: direct, value: 1, tolerance: 0, source: a}]", "greater than 0"),
        (
            "published: [{metric: dsr, scenario: long, attack: p4d, preset: paper, value: 1, tolerance: 1, source: a}]",
            "p4d (paper) is not among attacks",
        ),
        ("colour: red", "unknown key 'colour'"),
    ],
)
def test_a_protocol_with_faults(tmp_path: Path, line: str, said: str) -> None:
    given = {"name": "a", "title": "A", "source": "here", "model": "mini", "concepts": "[sword]", "betas": "[20]"}
    given |= dict([line.split(": ", 1)])
    path = tmp_path / "a.yaml"
    path.write_text("\n".join(f"{key}: {value}" for key, value in given.items()))
    with pytest.raises(DuoError) as caught:
        load_protocol(str(path))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 3


def test_an_unknown_protocol() -> None:
    with pytest.raises(DuoError, match="unknown protocol") as caught:
        load_protocol("sd9")
    assert "mini-sword" in str(caught.value.hint)


@pytest.mark.parametrize("content", ["{", '{"version": 0}', '{"version": 1, "protocol": {}}'])
def test_a_broken_file_of_an_earlier_call_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    """It is derived: a command that has measured everything must not end on it."""
    path = tmp_path / RESULTS
    assert _earlier(path) is None
    path.write_text(content)
    assert _earlier(path) is None
    assert not path.exists()
    assert "is set aside as" in capsys.readouterr().err


def test_the_schema_in_the_docs_is_that_of_the_form() -> None:
    name = "reproduction-v1.schema.json"
    assert (DOCS / name).read_text(encoding="utf-8") == text(name), "python benchmarks/schemas.py writes it again"


def test_files_that_were_sent_fit() -> None:
    for path in sorted((DOCS / "reproductions").rglob("*.json")):
        sent = read_sent(path, load_protocol(path.stem))
        assert path.with_suffix(".md").read_text() == as_text(sent)
