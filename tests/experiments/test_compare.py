"""Runs side by side: the spread between seeds, the transfer matrix, and what cannot be compared."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from duo_unlearn.cli.experiments import compare as command
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.compare import Key, compare
from duo_unlearn.records import ORIGINAL, Estimate, Source
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.results import write_results
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.settings.tree import as_yaml
from duo_unlearn.storage.files import write_json, write_text

JUDGE = "mini-judge[item=sword>=0.5]@0"


def entry(value: float, contract: str = JUDGE, system: str = "duo", **of: Any) -> Estimate:
    """A DSR. of: other fields of its source, e.g. attack, preset, search."""
    source = Source(system, "0" * 64, **{"scenario": "direct", "attack": None, "preset": None, "search": None, **of},
                    contract=contract, seeds=(0,))  # fmt: skip
    return Estimate.of("dsr", source, value, value - 0.1, min(1.0, value + 0.1), 50)


def attacked(value: float, attack: str, **of: Any) -> Estimate:
    return entry(value, attack=attack, preset="quick", **of)


def make(folder: Path, seed: int, *estimates: Estimate, beta: float = 9, systems: Sequence[Any] = ()) -> Path:
    """A run folder with settings and results."""
    settings = resolve_settings({"output": str(folder), "seed": seed, "train": {"beta": beta}})
    write_text(folder / "settings.yaml", as_yaml(settings))
    write_results(
        Run(folder), concept="sword", model="mini", seed=seed, quick=True, systems=systems, estimates=estimates,
        absent=[],
    )  # fmt: skip
    return folder


def test_seeds_have_a_spread(tmp_path: Path) -> None:
    values = (0.9, 0.94, 1.0)
    runs = [make(tmp_path / f"s{seed}", seed, entry(value)) for seed, value in enumerate(values)]
    (row,) = compare(runs).rows
    assert row.key == Key("dsr", "duo", "direct", None, None, None, JUDGE)
    assert [figure.value for figure in row.figures if figure] == list(values)
    assert row.spread is not None
    assert row.spread.mean == pytest.approx(statistics.fmean(values))
    assert row.spread.deviation == pytest.approx(statistics.stdev(values))
    # Student's t with two degrees of freedom.
    assert row.spread.mean - row.spread.low == pytest.approx(4.303 * statistics.stdev(values) / 3**0.5)
    assert row.spread.high == 1.0  # a share's mean is at most 1


def test_a_seed_without_a_broken_picture_counts_as_none_in_the_spread(tmp_path: Path) -> None:
    def broken(share: float) -> Estimate:
        return dataclasses.replace(entry(share), metric="broken", n=50)

    runs = [make(tmp_path / "s0", 0, entry(0.9), broken(0.1)), make(tmp_path / "s1", 1, entry(0.8), broken(0.2))]
    runs.append(make(tmp_path / "s2", 2, entry(0.7)))
    rows = {row.key.metric: row for row in compare(runs).rows}
    assert [figure and figure.value for figure in rows["broken"].figures] == [0.1, 0.2, 0.0]
    assert [figure and figure.n for figure in rows["broken"].figures] == [50, 50, 50]
    spread = rows["broken"].spread
    assert spread is not None
    assert spread.mean == pytest.approx(0.1)
    assert spread.seeds == 3
    assert rows["dsr"].spread is not None
    assert rows["dsr"].spread.seeds == 3


def test_numbers_of_an_edit_that_was_made_anew_are_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    systems = [{"name": name, "sha256": "", "edits": [{"name": "duo", "sha256": "a", "strength": 1}], "guards": []}
               for name in ("duo", "duo+sld")]  # fmt: skip
    systems.append(
        {"name": "uce", "sha256": "", "edits": [{"name": "uce", "sha256": "b", "strength": 1}], "guards": []}
    )
    measured = (entry(0.9), entry(0.95, system="duo+sld"), entry(0.5, system="uce"))
    runs = [make(tmp_path / f"s{seed}", seed, *measured, systems=systems) for seed in (0, 1)]
    for run in runs:
        for name, sha256 in (("duo", "a"), ("uce", "b")):
            write_json(Run(run).edit(name) / "provenance.json", {"sha256": sha256})
    assert len(compare(runs).rows) == 3
    assert capsys.readouterr().err == ""
    write_json(Run(runs[1]).edit("duo") / "provenance.json", {"sha256": "another"})
    rows = {row.key.system: row for row in compare(runs).rows}
    assert [figure and figure.value for figure in rows["duo"].figures] == [0.9, None]
    assert [figure and figure.value for figure in rows["duo+sld"].figures] == [0.95, None]
    assert rows["uce"].spread is not None
    assert "s1: no number of duo, duo+sld: its attempts are of another edit" in capsys.readouterr().err


def test_other_settings_and_other_contracts_are_not_pooled(tmp_path: Path) -> None:
    first = make(tmp_path / "a", 0, entry(0.9))
    beside = compare([first, make(tmp_path / "b", 1, entry(0.8), beta=100)])
    assert not beside.alike
    assert beside.rows[0].spread is None
    beside = compare([first, make(tmp_path / "c", 1, entry(0.8, "other[x>=0.6]@1"))])
    assert [[f and f.value for f in row.figures] for row in beside.rows] == [[0.9, None], [None, 0.8]]
    assert all(row.spread is None for row in beside.rows)


def test_every_system_but_the_original_has_rows_of_its_own(tmp_path: Path) -> None:
    guarded = {"system": "duo+negative-prompt"}
    first = make(
        tmp_path / "a", 0, entry(0.1, system=ORIGINAL), entry(0.9), entry(0.95, **guarded),
        attacked(0.5, "p4d", search="unaware", **guarded), attacked(0.3, "p4d", search="aware", **guarded),
        entry(0.7, scenario="synonym"),
    )  # fmt: skip
    second = make(tmp_path / "b", 1, entry(0.8), attacked(0.4, "p4d", search="unaware", **guarded))
    rows = {row.key.what: [f and f.value for f in row.figures] for row in compare([first, second]).rows}
    assert rows == {
        "duo: direct": [0.9, 0.8],
        "duo+negative-prompt: direct": [0.95, None],
        "duo+negative-prompt: direct, p4d (quick), unaware of the guard": [0.5, 0.4],
        "duo+negative-prompt: direct, p4d (quick), aware of the guard": [0.3, None],
        "duo: synonym": [0.7, None],
    }


def test_replayed_attacks_make_a_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "a", 0, entry(0.9), attacked(0.2, "p4d"), attacked(0.7, "p4d@b"), attacked(0.1, "p4d@elsewhere"))
    make(tmp_path / "b", 0, entry(0.8), attacked(0.4, "p4d"), attacked(0.6, "p4d@a"))
    beside = compare([tmp_path / "a", tmp_path / "b"])
    (transfer,) = beside.transfers
    assert transfer.key == Key("dsr", "duo", "direct", "p4d", "quick", None, JUDGE)
    assert [[f and f.value for f in line] for line in transfer.figures] == [[0.2, 0.6], [0.7, 0.4]]
    # What was replayed between them is in the matrix alone; from another run it is a row.
    assert [row.key.attack for row in beside.rows] == [None, "p4d", "p4d@elsewhere"]
    command([tmp_path / "a", tmp_path / "b"], tmp_path / "x.json")
    said = capsys.readouterr().out
    assert "found on (rows)" in said
    assert JUDGE in said  # brackets are no markup
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["transfers"][0]["figures"][1][0]["value"] == 0.7
    assert {"metric", "system", "scenario", "attack", "preset", "search", "contract"} <= set(written["rows"][0])
    command([tmp_path / "a", tmp_path / "b"], tmp_path / "x.json")  # as often as one likes
    for other in (tmp_path / "a", tmp_path / "a" / "results.json"):
        with pytest.raises(DuoError, match="is there, and no comparison"):
            command([tmp_path / "a", tmp_path / "b"], other)


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    first = make(tmp_path / "a", 0, entry(0.9))
    for name, content in (("x", []), ("y", {}), ("z", {"seed": 1}), ("w", {"version": 2, "estimates": [{}]})):
        broken = make(tmp_path / name, 1)
        write_json(broken / "results.json", content)
        with pytest.raises(DuoError, match=r"holds no JSON object|cannot be trusted"):
            compare([first, broken])
    edited = make(tmp_path / "edited", 1, entry(0.25))
    path = edited / "results.json"
    path.write_text(path.read_text().replace("0.25", "0.95"))
    with pytest.raises(DuoError, match="cannot be trusted"):
        compare([first, edited])
    with pytest.raises(DuoError, match="nothing to compare"):
        compare([first])
    with pytest.raises(DuoError, match="holds no results"):
        compare([first, tmp_path / "none"])
    (tmp_path / "other").mkdir()
    with pytest.raises(DuoError, match="same name"):
        compare([first, make(tmp_path / "other" / "a", 1, entry(0.9))])
    (first / "attacks.json").write_text("{}")
    with pytest.raises(DuoError, match="older form"):
        compare([first, edited])
