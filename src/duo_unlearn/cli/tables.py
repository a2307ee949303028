"""What the command line prints: errors and tables.

What was not measured is a dash, never a zero. Where a system's images were judged and none was broken or refused, the
cell says "none".
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import DuoError
from ..records import ORIGINAL, Estimate, is_share


def print_error(error: DuoError) -> None:
    """An error in at most three lines, on standard error."""
    print(f"Error: {error}", file=sys.stderr)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; in a file it is as wide as it needs to be."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(escape(column))
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    Console(width=None if sys.stdout.isatty() else max(120, 40 * len(columns))).print(table)


def figures(metric: str, cell: Mapping[str, Any] | None) -> str:
    """Value, interval and n: shares in per cent, others as plain numbers."""
    if cell is None:
        return "–"
    form = ".1%" if is_share(metric) else ".3g"
    return f"{cell['value']:{form}} [{cell['low']:{form}}, {cell['high']:{form}}] {cell['n']}"


def estimates_table(estimates: Sequence[Estimate]) -> None:
    """What was measured without attack: a row a scenario, metric and contract, a column a system."""
    plain = [e for e in estimates if e.attack is None]
    several = len({e.contract for e in plain if e.metric == "dsr"}) > 1
    _by_system(
        plain, lambda e: (e.scenario, e.metric, e.contract if several else ""), ("scenario", "metric", "contract")
    )


def attacks_table(estimates: Sequence[Estimate]) -> None:
    """DSR under attack: a row an attack, preset and contract, a column a system. Awareness of guards is told."""
    attacks = [e for e in estimates if e.attack is not None]

    def row(e: Estimate) -> tuple[str, ...]:
        search = f", {e.search} of the guard" if e.search else ""
        return f"{e.attack}{search}", f"{e.scenario}, {e.preset}", e.metric, e.contract

    _by_system(attacks, row, ("attack", "prompts, budget", "metric", "contract"))


def _by_system(estimates: Sequence[Estimate], key: Any, names: Sequence[str]) -> None:
    if not estimates:
        return
    systems = list(dict.fromkeys([ORIGINAL, *(e.system for e in estimates)]))
    cells: dict[tuple[str, ...], dict[str, Estimate]] = {}
    for estimate in estimates:
        cells.setdefault(key(estimate), {})[estimate.system] = estimate
    judged = {e.of_what[1:] for e in estimates if e.metric in ("dsr", "detected")}  # [0] is the metric

    def cell(by: Mapping[str, Estimate], name: str) -> str:
        if name in by:
            return figures(by[name].metric, by[name].as_json())
        here = dataclasses.replace(next(iter(by.values())), system=name)
        return "none" if here.metric in ("refused", "broken") and here.of_what[1:] in judged else "–"

    shown = [i for i in range(len(names)) if any(row[i] for row in cells)]
    rows = [
        [
            *(row[i] for i in shown),
            *(cell(by, name) for name in systems),
            str(sum(e.unscored for e in by.values())),
        ]
        for row, by in cells.items()
    ]
    print_table("value [95 % interval] n", [*(names[i] for i in shown), *systems, "unscored"], rows)


def judges_table(labels: Mapping[str, Any] | None) -> None:
    """How often each judge is right by people's labels; nothing where there are none."""
    if labels is None or not labels["judges"]:
        return
    kinds = ("sensitivity", "specificity", "right_if_seen", "right_if_unseen")
    print_table(
        f"the judges beside {labels['pictures']} labelled pictures: value [95 % interval] n",
        ("judge", "labels", "drawn", *(kind.replace("_", " ") for kind in kinds)),
        (
            (judge["contract"], str(judge["labels"]), judge["drawn"], *(figures("", judge[kind]) for kind in kinds))
            for judge in labels["judges"]
        ),
    )
    pairs = [
        (", ".join(pair["labellers"]), f"{pair['same']} of {pair['pictures']}",
         "–" if pair["kappa"] is None else f"{pair['kappa']:.3f}")
        for pair in labels["agreement"]
    ]  # fmt: skip
    if pairs:
        print_table("labellers beside one another", ("labellers", "agree", "Cohen's κ"), pairs)


def interference_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Each concept's figures on the original, under its own adapter alone, and under the sum."""
    names = ("original", "alone", "composed")
    print_table(
        "value [95 % interval] n",
        ("concept", "scenario", "metric", *names),
        (
            (row["concept"], row["scenario"], row["metric"], *(figures(row["metric"], row.get(n)) for n in names))
            for row in rows
        ),
    )


def comparison_tables(comparison: Mapping[str, Any]) -> None:
    """What `duo compare` gives: a row a number, a column a run; then a matrix an attack that was replayed."""
    runs, spreads = comparison["runs"], any(row["spread"] for row in comparison["rows"])
    rows = []
    for row in comparison["rows"]:
        cells = [figures(row["metric"], cell) for cell in row["figures"]]
        if spreads:
            cells.append(_spread(row["metric"], row["spread"]))
        rows.append((row["what"], row["metric"], row["contract"], *cells))
    columns = ("what", "metric", "contract", *runs, *(["mean over seeds [95 %], sd, seeds"] if spreads else []))
    print_table("edited systems: value [95 % interval] n", columns, rows)
    for transfer in comparison["transfers"]:
        lines = [
            (name, *(figures("dsr", cell) for cell in line))
            for name, line in zip(runs, transfer["figures"], strict=True)
        ]
        print_table(f"DSR of {transfer['what']}: found on (rows), used on (columns)", ("", *runs), lines)


def _spread(metric: str, spread: Mapping[str, Any] | None) -> str:
    if spread is None:
        return "–"
    form = ".1%" if is_share(metric) else ".3g"
    mean = f"{spread['mean']:{form}} [{spread['low']:{form}}, {spread['high']:{form}}]"
    return f"{mean}, {spread['deviation']:{form}}, {spread['seeds']}"
