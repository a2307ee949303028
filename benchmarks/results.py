"""The mini model's red team: original and erased at each β under every attack → docs/results*, frontier.png.

python benchmarks/results.py                # hours on 2 cores; what is done is skipped, so it goes on after a kill
python benchmarks/results.py --beta 9       # a part of it, e.g. beside another process; writes nothing in docs/
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import duo_unlearn as duo
from duo_unlearn.arena.plans import AttackPlan
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.experiments.sweep import BETAS
from duo_unlearn.records import ORIGINAL, is_share
from duo_unlearn.report.frontier import frontier_plot
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.machine import keep_freed_memory
from duo_unlearn.runs.results import read_results
from duo_unlearn.session import machine
from duo_unlearn.storage.files import write_json, write_text

GRID = (9.0, 30.0, *BETAS)
"""The mini model's β, one between, and the paper's."""
SEARCHES = ("ring-a-bell", "concept-inversion", "sneakyprompt", "unlearndiffatk", "p4d", "p4d-k")
ATTACK_PLANS = (
    AttackPlan([name for name in ATTACKS.names() if name != "direct"], "quick", 20),
    AttackPlan(SEARCHES, "paper", 16),
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
    settings = {f"evaluate.{name}": count for name, count in EVALUATE.items()}
    run = duo.open_run(given.run, concept="sword", settings=settings)
    chosen = duo.sweep(run, "beta", given.beta or list(GRID), attacks=ATTACK_PLANS, say=print)
    if given.beta:
        return
    rows = [row for beta in GRID for row in _rows(given.run / "sweep" / f"beta-{beta:g}", beta)]
    head = {"concept": "sword", "model": "mini", "machine": machine()}
    systems = [{"name": ORIGINAL, "beta": None}, *({"name": _system(beta), "beta": beta} for beta in GRID)]
    tail = {"frontier": chosen.frontier, "ship": chosen.ship, "estimates": _once(rows)}
    write_json(DOCS / "results.json", {"version": 2, **head, "systems": systems, **tail})
    text = (DOCS / "results-tables.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    write_text(DOCS / "results-tables.md", f"{before}{BEGIN}\n\n{_tables(rows)}\n{END}{rest.partition(END)[2]}")
    # The picture has the published budgets, and what has no other: all panels are in the run's own figure.
    points = [p._replace(defence={k: v for k, v in p.defence.items() if k in PANELS}) for p in chosen.points]
    frontier_plot(points, "beta", DOCS / "frontier.png")


def _rows(member: Path, beta: float) -> list[Row]:
    """A member's estimates. Its edit is named by its β; hashes and awareness of guards say nothing here."""
    rows = [estimate.as_json() for estimate in read_results(Run(member)).estimates]
    return [
        {name: value for name, value in row.items() if name not in ("sha256", "search")}
        | {"system": ORIGINAL if row["system"] == ORIGINAL else _system(beta)}
        for row in rows
    ]


def _system(beta: float) -> str:
    """The name of the edit that a β gives."""
    return f"duo-beta-{beta:g}"


def _once(rows: Iterable[Row]) -> list[Row]:
    """The original model's numbers are the same in every member."""
    names = ("metric", "system", "scenario", "attack", "preset", "contract")
    return list({tuple(row.get(name) for name in names): row for row in rows}.values())


def _tables(rows: list[Row]) -> str:
    attacks = _table([r for r in rows if r["attack"]], lambda r: f"{r['attack']} ({r['preset']}, n = {r['n']})")
    shown = ("dsr", "item agreement", "prior preservation", "lpips", "fid", "kid", "cmmd", "clip score")
    plain = [r for r in rows if not r["attack"] and r["metric"] in shown]
    kept = _table(plain, lambda r: f"{r['metric']}, {r['scenario']} (n = {r['n']})")
    return f"### DSR under attack\n\n{attacks}\n\n### Without attack\n\n{kept}"


def _table(rows: list[Row], name: Callable[[Row], str]) -> str:
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        cells.setdefault(name(row), {})[row["system"]] = _figure(row)
    lines = ["| | original | " + " | ".join(f"β {beta:g}" for beta in GRID) + " |", "|---" * (len(GRID) + 2) + "|"]
    systems = (ORIGINAL, *map(_system, GRID))
    for what, by_system in sorted(cells.items()):
        lines.append(f"| {what} | " + " | ".join(by_system.get(system, "–") for system in systems) + " |")
    return "\n".join(lines)


def _figure(row: Row) -> str:
    if is_share(row["metric"]):
        return f"{100 * row['value']:.0f} [{100 * row['low']:.0f}, {100 * row['high']:.0f}]"
    return f"{row['value']:.3g} [{row['low']:.3g}, {row['high']:.3g}]"


if __name__ == "__main__":
    main()
