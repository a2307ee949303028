"""Whether the numbers are what they were: a run's edit, its estimates, and a red team's, against a record.

The record is of one machine: sums are rounded otherwise on another processor, so it is made and compared on one.

python benchmarks/golden.py RUN --write golden.json                 # record
python benchmarks/golden.py RUN --attacked RUN --against golden.json   # compare: exit code 1 where a number differs
--but p4d --but p4d-k --but unlearndiffatk                             # searches that were changed on purpose since
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.results import WORST, read_results
from duo_unlearn.session import machine
from duo_unlearn.storage.files import read_json, sha256_of, write_json

COMPARED = ("value", "low", "high", "n")


def record(run: Path, attacked: Path | None) -> dict[str, Any]:
    """The hash of the run's edits, its estimates without attack, and the other run's DSR under attack."""
    edits = {path.parent.name: sha256_of(path) for path in sorted(Run(run).edits.glob("*/*.safetensors"))}
    plain = {_name(e.metric, e.system, e.scenario, e.contract): _figures(e)
             for e in read_results(Run(run)).estimates if e.attack is None}  # fmt: skip
    attacks = {}
    if attacked is not None:
        attacks = {_name(str(e.attack), e.system, e.scenario, str(e.preset), e.contract): _figures(e)
                   for e in read_results(Run(attacked)).estimates if e.attack not in (None, WORST)}  # fmt: skip
    return {"machine": machine(), "edits": edits, "estimates": plain, "attacks": attacks}


def _name(*parts: str) -> str:
    return " | ".join(parts)


def _figures(estimate: Any) -> list[float]:
    return [getattr(estimate, name) for name in COMPARED]


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for everything that differs or is missing."""
    lines = []
    for part in ("edits", "estimates", "attacks"):
        for name, value in then[part].items():
            if now[part].get(name) != value:
                lines.append(f"{part}: {name}: {value} then, {now[part].get(name, 'absent')} now")
    return lines


def main() -> None:
    """Write a record, or compare with one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--attacked", type=Path, help="a run whose red team is compared too")
    parser.add_argument("--write", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--but", action="append", default=[], help="an attack that is not compared; repeatable")
    given = parser.parse_args()
    now = record(given.run, given.attacked)
    if given.write is not None:
        write_json(given.write, now)
    if given.against is not None:
        then = read_json(given.against)
        then["attacks"] = {k: v for k, v in then["attacks"].items() if k.partition(" | ")[0] not in given.but}
        lines = differences(then, now)
        without = f"; not compared: {', '.join(given.but)}" if given.but else ""
        print("\n".join(lines) if lines else f"the same: {_counts(then)}{without}")
        sys.exit(bool(lines))
    if given.write is None:
        print(json.dumps(now, indent=1))


def _counts(then: dict[str, Any]) -> str:
    return ", ".join(f"{len(then[part])} {part}" for part in ("edits", "estimates", "attacks"))


if __name__ == "__main__":
    main()
