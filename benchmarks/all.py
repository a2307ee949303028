"""All benchmarks that need no GPU, one after the other, and docs/benchmarks-table.md with their ratios.

Run it when nothing else runs: the ratios are of times.

    python benchmarks/all.py                        # the table, in more than an hour on 2 cores
    python benchmarks/all.py --only step -- --steps 60    # one of them, with options of its own; the others stay
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any, Final

from duo_unlearn.session import machine

ROOT: Final = Path(__file__).parents[1]
NAMES: Final = ("step", "sampling", "red_team", "workers", "arena_time", "eraser_time", "memory")
PAGE: Final = ROOT / "docs" / "benchmarks-table.md"
HEAD: Final = "## "
INTRODUCTION: Final = """# Benchmarks: the table of ratios

Written by `python benchmarks/all.py` (`make bench`); what each is: [benchmarks.md](benchmarks.md)."""


def figures(name: str, options: list[str]) -> dict[str, Any]:
    """What a benchmark prints last, its words shown as they come. One that fails ends all."""
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), "--json", *options]
    print(f"== {name}", flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            print(line, end="", flush=True)
    if process.returncode:
        sys.exit(f"benchmarks/{name}.py failed with exit status {process.returncode}")
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def section(name: str, options: list[str]) -> str:
    """Run a benchmark; the part of the page that is of it. What was measured once has no middle half."""
    at, found = commit(), figures(name, options)  # the files may be others when it ends
    facts = ", ".join(f"{key} {_text(value)}" for key, value in found.items() if key != "rows")
    command = " ".join(["python", f"benchmarks/{name}.py", *options])
    told = f"`{command}`: {facts}. {machine()}; commit {at}."
    lines = [f"{HEAD}{_title(name)}", "", textwrap.fill(told, 100, break_on_hyphens=False), ""]
    lines += ["| ratio | median | middle half | goal |", "|---|---|---|---|"]
    for row in found.get("rows", []):
        half = f"{row['low']:.3f} to {row['high']:.3f}" if row["low"] < row["high"] else "–"
        lines.append(f"| {row['what']} | **{row['value']:.3f}** | {half} | {row.get('goal') or '–'} |")
    return "\n".join(lines) + "\n"


def write_section(name: str, text: str) -> None:
    """Put a benchmark's section in the page, in the place of its old one."""
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    known = {part.partition("\n")[0]: HEAD + part for part in ("\n" + page).split("\n" + HEAD)[1:]}
    known[_title(name)] = text
    there = [known[_title(one)].strip() for one in NAMES if _title(one) in known]
    PAGE.write_text("\n\n".join([INTRODUCTION, *there]) + "\n", encoding="utf-8")


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(one)}" for key, one in value.items())
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def commit() -> str:
    """The commit that is measured, and whether the files are its own: the page of figures is none of them."""
    git = ["git", "-C", str(ROOT)]
    name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
    changed = subprocess.run(
        [*git, "status", "--porcelain", "-uno", "--", f":!{PAGE}"], capture_output=True, text=True, check=True
    ).stdout
    return name.strip() + (" with changes" if changed.strip() else "")


def main() -> None:
    """Run them, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=NAMES, help="one benchmark; the others' sections of the page stay")
    parser.add_argument("options", nargs="*", help="after --: options of the benchmark")
    arguments = parser.parse_args()
    if arguments.options and arguments.only is None:
        parser.error("options are those of one benchmark: --only NAME -- OPTIONS")
    for name in [arguments.only] if arguments.only else NAMES:
        write_section(name, section(name, arguments.options))
        print(f"{PAGE.relative_to(ROOT)}: {_title(name)} is written")


if __name__ == "__main__":
    main()
