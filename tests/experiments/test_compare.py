"""Runs side by side: the spread between seeds, the transfer matrix, and what cannot be compared."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from duo_unlearn.cli import arena as red_cli
from duo_unlearn.errors import DuoError
from duo_unlearn.experiments.compare import compare
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.settings.tree import as_yaml
from duo_unlearn.storage.files import write_json, write_text

JUDGE = "mini-judge[item=sword>=0.5]@0"


def entry(value: float, contract: str = JUDGE, **more: Any) -> dict[str, Any]:
    return {"metric": "dsr", "model": "erased", "prompts": "direct", "value": value, "low": value - 0.1,
            "high": min(1.0, value + 0.1), "n": 50, "contract": contract, **more}  # fmt: skip


def make(folder: Path, seed: int, *estimates: dict[str, Any], beta: float = 9, **attacks: float) -> Path:
    settings = resolve_settings({"output": str(folder), "seed": seed, "train": {"beta": beta}})
    folder.mkdir()
    write_text(folder / "settings.yaml", as_yaml(settings))
    write_json(folder / "results.json", {"version": 1, "seed": seed, "estimates": list(estimates)})
    if attacks:
        rows = [entry(value, attack=name.replace("_at_", "@"), preset="quick") for name, value in attacks.items()]
        write_json(folder / "attacks.json", {"version": 1, "estimates": rows})
    return folder


def test_seeds_have_a_spread(tmp_path: Path) -> None:
    values = (0.9, 0.94, 1.0)
    runs = [make(tmp_path / f"s{seed}", seed, entry(value)) for seed, value in enumerate(values)]
    (row,) = compare(runs).rows
    assert [figure.value for figure in row.figures if figure] == list(values)
    assert row.spread is not None
    assert row.spread.mean == pytest.approx(statistics.fmean(values))
    assert row.spread.deviation == pytest.approx(statistics.stdev(values))
    # Student's t with two degrees of freedom.
    assert row.spread.mean - row.spread.low == pytest.approx(4.303 * statistics.stdev(values) / 3**0.5)
    assert row.spread.high == 1.0  # a share's mean is at most 1


def test_other_settings_and_other_contracts_are_not_pooled(tmp_path: Path) -> None:
    first = make(tmp_path / "a", 0, entry(0.9))
    found = compare([first, make(tmp_path / "b", 1, entry(0.8), beta=100)])
    assert not found.alike
    assert found.rows[0].spread is None
    found = compare([first, make(tmp_path / "c", 1, entry(0.8, "other[x>=0.6]@1"))])
    assert [[f and f.value for f in row.figures] for row in found.rows] == [[0.9, None], [None, 0.8]]
    assert all(row.spread is None for row in found.rows)


def test_replayed_attacks_make_a_matrix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "a", 0, entry(0.9), p4d=0.2, p4d_at_b=0.7)
    make(tmp_path / "b", 0, entry(0.8), p4d=0.4, p4d_at_a=0.6)
    (transfer,) = compare([tmp_path / "a", tmp_path / "b"]).transfers
    assert transfer.attack == "p4d, quick"
    assert [[f and f.value for f in line] for line in transfer.figures] == [[0.2, 0.6], [0.7, 0.4]]
    red_cli.compare([tmp_path / "a", tmp_path / "b"], tmp_path / "x.json")
    said = capsys.readouterr().out
    assert "found on (rows)" in said
    assert JUDGE in said  # brackets are no markup
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["transfers"][0]["figures"][1][0]["value"] == 0.7


def test_what_cannot_be_compared(tmp_path: Path) -> None:
    first = make(tmp_path / "a", 0, entry(0.9))
    for name, content in (
        ("x", []),
        ("y", {}),
        ("z", {"seed": 1}),
        ("w", {"seed": 1, "estimates": [{"model": "erased"}]}),
    ):
        broken = make(tmp_path / name, 1)
        write_json(broken / "results.json", content)
        with pytest.raises(DuoError, match="broken"):
            compare([first, broken])
    with pytest.raises(DuoError, match="nothing to compare"):
        compare([first])
    with pytest.raises(DuoError, match="holds no results"):
        compare([first, tmp_path / "none"])
    (tmp_path / "other").mkdir()
    with pytest.raises(DuoError, match="same name"):
        compare([first, make(tmp_path / "other" / "a", 1, entry(0.9))])
