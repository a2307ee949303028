"""The short tables of docs/arena.md: what a cell holds, and what the columns beside it are of."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from duo_unlearn.interval import wilson
from duo_unlearn.records import Estimate
from duo_unlearn.report.arena import Cost, Standing
from duo_unlearn.runs.results import WORST

JUDGES = ("judge-b[item=sword>=0.5]@1", "judge[item=sword>=0.5]@2")
Place = tuple[str, str | None, str | None]
DIRECT: Place = ("direct", None, None)


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module("arena_tables")


def share(metric: str, place: Place, hits: int, n: int, judge: str = JUDGES[0], sha256: str = "") -> Estimate:
    scenario, attack, preset = place
    low, high = wilson(hits, n)
    return Estimate(
        metric=metric, system="duo", scenario=scenario, attack=attack, preset=preset, value=hits / n, low=low,
        high=high, n=n, unscored=0, contract=judge, seeds=(0,), sha256=sha256,
    )  # fmt: skip


def cells(tables: Any, *estimates: Estimate) -> dict[str, str]:
    """The columns of the table of attacks, by their titles."""
    first = share("dsr", DIRECT, 50, 50)
    _, attacked = tables.short([Standing("duo", "duo", "images", "generator", Cost(), [first, *estimates])], JUDGES)
    titles, _, values = (split(line) for line in attacked.splitlines())
    return dict(zip(titles, values, strict=True))


def split(line: str) -> Sequence[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_most_broken_attack_is_no_worst_case_whose_share_is_of_prompts(tables: Any) -> None:
    p4d, worst = ("direct", "p4d", "quick"), ("direct", WORST, "quick")
    found = cells(
        tables, share("dsr", p4d, 40, 45), share("broken", p4d, 5, 50), share("dsr", worst, 15, 30),
        share("broken", worst, 20, 50),
    )  # fmt: skip
    assert found["most broken"] == "10"
