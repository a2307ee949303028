"""What the command line prints: errors and tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DuoError
from ..records import Estimate, is_share


def print_error(error: DuoError) -> None:
    """An error in at most three lines, on standard error."""
    print(f"Error: {error}", file=sys.stderr)


def figures(metric: str, value: float, low: float, high: float, n: int) -> str:
    """Value, interval and n: shares in per cent, others as plain numbers."""
    form = ".1%" if is_share(metric) else ".3g"
    return f"{value:{form}} [{low:{form}}, {high:{form}}] {n}"


def estimates_table(estimates: Sequence[Estimate]) -> None:
    """Original and erased side by side: value, 95 % interval, n. What was not measured is a dash, never a zero."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="value [95 % interval] n")
    for column in ("prompts", "metric", "original", "erased"):
        table.add_column(column)
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for e in estimates:
        text = figures(e.metric, e.value, e.low, e.high, e.n)
        cells.setdefault((e.prompts, e.metric), {})[e.model] = text
    for (prompts, metric), by_model in cells.items():
        table.add_row(prompts, metric, by_model.get("original", "–"), by_model.get("erased", "–"))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def interference_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Each concept's figures on the original, under its own adapter alone, and under the sum."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="value [95 % interval] n")
    for column in ("concept", "prompts", "metric", "original", "alone", "composed"):
        table.add_column(column)

    def text(metric: str, cell: Mapping[str, Any] | None) -> str:
        return "–" if cell is None else figures(metric, cell["value"], cell["low"], cell["high"], cell["n"])

    for row in rows:
        texts = (text(row["metric"], row.get(name)) for name in ("original", "alone", "composed"))
        table.add_row(row["concept"], row["prompts"], row["metric"], *texts)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def attacks_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """DSR by attack and preset, original and erased side by side. A quick run says so; what is absent is a dash."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="DSR [95 % interval] n")
    for column in ("attack", "preset", "original", "erased", "unscored"):
        table.add_column(column)
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        cells.setdefault((row["attack"], row["preset"]), {})[row["model"]] = row
    for (attack, preset), by_model in cells.items():
        texts = [
            f"{r['value']:.1%} [{r['low']:.1%}, {r['high']:.1%}] {r['n']}" if (r := by_model.get(name)) else "–"
            for name in ("original", "erased")
        ]
        table.add_row(attack, preset, *texts, str(sum(row["unscored"] for row in by_model.values())))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def comparison_tables(found: Mapping[str, Any]) -> None:
    """What `duo compare` found: a row a number, a column a run; then a matrix an attack that was replayed."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 90 + 30 * len(found["runs"]))

    def text(metric: str, cell: Mapping[str, Any] | None) -> str:
        return "–" if cell is None else figures(metric, cell["value"], cell["low"], cell["high"], cell["n"])

    spreads = any(row["spread"] for row in found["rows"])
    table = Table(title="erased models: value [95 % interval] n")
    for column in (
        "what",
        "metric",
        "contract",
        *found["runs"],
        *(["mean over seeds [95 %], sd, seeds"] if spreads else []),
    ):
        table.add_column(column)
    for row in found["rows"]:
        cells = [text(row["metric"], cell) for cell in row["figures"]]
        if spreads and (s := row["spread"]):
            form = ".1%" if is_share(row["metric"]) else ".3g"
            mean = f"{s['mean']:{form}} [{s['low']:{form}}, {s['high']:{form}}]"
            cells.append(f"{mean}, {s['deviation']:{form}}, {s['seeds']}")
        table.add_row(row["what"], row["metric"], escape(row["contract"]), *cells)
    console.print(table)
    for transfer in found["transfers"]:
        table = Table(title=f"DSR under {transfer['attack']}: found on (rows), used on (columns)")
        for column in ("", *found["runs"]):
            table.add_column(column)
        for name, line in zip(found["runs"], transfer["figures"], strict=True):
            table.add_row(name, *(text("dsr", cell) for cell in line))
        console.print(table)
