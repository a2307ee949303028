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


def test_a_worst_case_says_of_how_many_prompts_it_is_and_what_bounds_the_others_leave(tables: Any) -> None:
    worst = ("direct", WORST, "quick")
    some = share("dsr", worst, 15, 30), share("broken", worst, 20, 50)
    found = cells(tables, *some)
    assert (found["worst case"], found["worst case, of all prompts"]) == ("50 [33, 67] of 30", "30 to 70")
    found = cells(tables, share("dsr", worst, 14, 50))
    assert (found["worst case"], found["worst case, of all prompts"]) == ("28 [17, 42]", "28")
    one = Standing("duo", "duo", "images", "generator", Cost(), [share("dsr", DIRECT, 50, 50), *some])
    column = tables.ATTACKED["worst case"]
    assert tables.cell(one, column, JUDGES) == "50 [33, 67] n 30, broken 40, of all prompts 30 to 70"
    bare = Standing("uce", "eraser", "prompts", "generator", Cost(), [share("dsr", ("direct", "p4d", "quick"), 1, 50)])
    _, attacked = tables.short([one, bare], JUDGES)
    assert split(attacked.splitlines()[-1])[-3:] == ["–", "–", "0"]


def test_what_an_attack_that_asks_judge_a_leaves_is_told_by_that_judge_too(tables: Any) -> None:
    searched, p4d = ("direct", "unlearndiffatk", "quick"), ("direct", "p4d", "quick")
    by_both = [share("dsr", place, hits, 50, judge) for place in (searched, p4d)
               for judge, hits in zip(JUDGES, (48, 47), strict=True)]  # fmt: skip
    found = cells(tables, *by_both)
    assert (found["UnlearnDiffAtk"], found["P4D"]) == ("96 [87, 99], A 94", "96 [87, 99]")
    assert cells(tables, by_both[0])["UnlearnDiffAtk"] == "96 [87, 99]"


def test_a_control_stands_behind_a_colon_and_one_on_keep_prompts_in_brackets(tables: Any) -> None:
    def control(scenario: str, hits: int, sha256: str = "") -> Estimate:
        return share("item agreement", (scenario, "completion", "quick"), hits, 50, JUDGES[0].partition("[")[0], sha256)

    dsr, old = share("dsr", ("direct", "completion", "quick"), 49, 50), control("control", 34)
    assert cells(tables, dsr)["completion"] == "98 [90, 100]"
    assert cells(tables, dsr, old)["completion"] == "98 [90, 100] : (68)"
    assert cells(tables, dsr, old, control("control-item", 45))["completion"] == "98 [90, 100] : 90"
    # What was made again is of other weights, whichever of the two it is.
    assert cells(tables, dsr, control("control-item", 45, "b"))["completion"] == "98 [90, 100] : 90†"
