"""The mini model's red team: original and erased at each β under every attack → docs/results*, frontier.png.

python benchmarks/results.py                # hours on 2 cores; what is done is skipped, so it goes on after a kill
python benchmarks/results.py --beta 9       # a part of it, e.g. beside another process; writes nothing in docs/
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.experiments.sweep import BETAS, Assault, sweep
from duo_unlearn.records import is_share
from duo_unlearn.report.frontier import frontier_plot
from duo_unlearn.runs.machine import keep_freed_memory
from duo_unlearn.session import Session, machine
from duo_unlearn.settings.resolve import resolve_settings
from duo_unlearn.storage.files import read_json, write_json, write_text

GRID = (9.0, 30.0, *BETAS)
"""The mini model's β, one between, and the paper's."""
ASSAULTS = (
    Assault([name for name in ATTACKS if name != "direct"], "quick", 20),
    Assault(["ring-a-bell", "concept-inversion", "sneakyprompt", "unlearndiffatk", "p4d", "p4d-k"], "paper", 16),
)
PANELS = (
    *("direct", "synonym", "indirect", "ring-a-bell", "concept-inversion", "sneakyprompt", "unlearndiffatk"),
    *("p4d", "p4d-k"),
)
EVALUATE = {"prompts": 100, "keep_prompts": 100, "neighbour_prompts": 50, "inversion_prompts": 0}
DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- figures: python benchmarks/results.py -->", "<!-- end of figures -->"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/results"))
    parser.add_argument("--beta", type=float, action="append")
    given = parser.parse_args()
    keep_freed_memory()  # as `duo` does
    session = Session(resolve_settings({"concept": "sword", "output": str(given.run), "evaluate": EVALUATE}))
    chosen = sweep(session, "beta", given.beta or list(GRID), assaults=ASSAULTS, say=print)
    if given.beta:
        return
    rows = [row for beta in GRID for row in _rows(given.run / "sweep" / f"beta-{beta:g}", beta)]
    told = {"concept": "sword", "model": "mini", "seed": session.settings.seed, "machine": machine(), "betas": GRID}
    write_json(
        DOCS / "results.json",
        {"version": 1, **told, "frontier": chosen.frontier, "ship": chosen.ship, "estimates": _once(rows)},
    )
    text = (DOCS / "results-tables.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    write_text(DOCS / "results-tables.md", f"{before}{BEGIN}\n\n{_tables(rows)}\n{END}{rest.partition(END)[2]}")
    # The picture has the published budgets, and what has no other: all panels are in the run's own figure.
    points = [p._replace(defence={k: v for k, v in p.defence.items() if k in PANELS}) for p in chosen.points]
    frontier_plot(points, "beta", DOCS / "frontier.png")


def _rows(member: Path, beta: float) -> list[Row]:
    """A member's estimates, with what the attacks gave; β where it matters."""
    known = [*read_json(member / "results.json")["estimates"], *read_json(member / "attacks.json")["estimates"]]
    return [{**row, "beta": None if row["model"] == "original" else beta} for row in known]


def _once(rows: Iterable[Row]) -> list[Row]:
    """The original model's numbers are the same in every member."""
    names = ("metric", "model", "prompts", "attack", "preset", "beta", "contract")
    return list({tuple(row.get(name) for name in names): row for row in rows}.values())


def _tables(rows: list[Row]) -> str:
    attacks = _table([r for r in rows if "attack" in r], lambda r: f"{r['attack']} ({r['preset']}, n = {r['n']})")
    shown = ("dsr", "item agreement", "prior preservation", "lpips", "fid", "kid", "cmmd", "clip score")
    plain = [r for r in rows if "attack" not in r and r["metric"] in shown]
    kept = _table(plain, lambda r: f"{r['metric']}, {r['prompts']} (n = {r['n']})")
    return f"### DSR under attack\n\n{attacks}\n\n### Without attack\n\n{kept}"


def _table(rows: list[Row], name: Callable[[Row], str]) -> str:
    cells: dict[str, dict[float | None, str]] = {}
    for row in rows:
        cells.setdefault(name(row), {})[row["beta"]] = _figure(row)
    lines = ["| | original | " + " | ".join(f"β {beta:g}" for beta in GRID) + " |", "|---" * (len(GRID) + 2) + "|"]
    for what, by_beta in sorted(cells.items()):
        lines.append(f"| {what} | " + " | ".join(by_beta.get(beta, "–") for beta in (None, *GRID)) + " |")
    return "\n".join(lines)


def _figure(row: Row) -> str:
    if is_share(row["metric"]):
        return f"{100 * row['value']:.0f} [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
    return f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"


if __name__ == "__main__":
    main()
