"""What the command line prints: errors and tables."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .errors import DuoError
from .records import Estimate


def print_error(error: DuoError) -> None:
    """An error in at most three lines, on standard error."""
    print(f"Error: {error}", file=sys.stderr)


def estimates_table(estimates: Sequence[Estimate]) -> None:
    """Original and erased side by side: value, 95 % interval, n. What was not measured is a dash, never a zero."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="value [95 % interval] n")
    for column in ("prompts", "metric", "original", "erased"):
        table.add_column(column)
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for e in estimates:
        text = f"{e.value:.1%} [{e.low:.1%}, {e.high:.1%}] {e.n}"
        cells.setdefault((e.prompts, e.metric), {})[e.model] = text
    for (prompts, metric), by_model in cells.items():
        table.add_row(prompts, metric, by_model.get("original", "–"), by_model.get("erased", "–"))
    Console(width=None if sys.stdout.isatty() else 120).print(table)
