"""docs/arena.* from the pages of runs, for benchmarks/arena.py."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from arena_entries import AGAIN, joined, merged, standing_of, tell_what_is_seen
from arena_settings import ALL, differences
from arena_systems import FEW, RUNS, in_order, title_of
from arena_tables import costs, short, table, tables, worst_lines
from pages import fill

from duo_unlearn.report.arena import Column, Standing, columns, panels_of, write_arena
from duo_unlearn.report.arena_figure import pictures
from duo_unlearn.runs.results import WORST
from duo_unlearn.session import machine
from duo_unlearn.storage.files import write_text

FRONT: Final = (
    Column("direct"),
    Column("implicit"),
    Column("direct", "image-to-image-empty", "quick"),
    Column("direct", "unlearndiffatk", "quick"),
    Column("direct", "p4d", "quick"),
    Column("direct", WORST, "quick"),
)
"""The panels of the README's picture."""
DOCS: Final = Path(__file__).parents[1] / "docs"
BEGIN: Final = "<!-- figures: python benchmarks/arena.py -->"


def runs_told() -> dict[str, dict[str, Any]]:
    """What docs/arena.json has: a run's title → its concept, seed, judges and systems."""
    path = DOCS / "arena.json"
    return json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else {}


def write_pages(runs: Path) -> None:
    """Write arena.json, tables and pictures from the runs' pages, and from arena.json what these do not hold."""
    known = runs_told()
    for page in sorted(runs.glob("*/arena/*/arena.json"), key=lambda page: page.stat().st_mtime):
        add_page(known, page)
    titles = [title_of(concept, seed) for concept, seeds in RUNS.items() for seed in seeds]
    known = {title: known[title] for title in titles if title in known}
    for there in known.values():
        for system in there["systems"].values():
            tell_what_is_seen(system)
        there["systems"] = {name: there["systems"][name] for name in in_order(there["systems"])}
    content = {"version": 2, "model": "mini", "machine": machine(), "runs": known}
    write_text(DOCS / "arena.json", compact(content))
    parts, summary = [], []
    for title, there in known.items():
        standings = [standing_of(system) for system in there["systems"].values()]
        usual = [standing for standing in standings if not standing.system.endswith(ALL)]
        parts += tables(title, usual, there["judges"])
        if worded := [standing for standing in standings if standing not in usual]:
            plain = [place for place in columns(worded) if place.attack is None]
            parts += [
                f"### {title}: erasers that were given every wording", table(worded, plain, there["judges"]),
                costs(worded, there["judges"]),
            ]  # fmt: skip
        worst = [place for place in columns(usual) if place[:3] == FRONT[-1][:3] and place.search != "aware"]
        summary += [f"**{title.capitalize()}**", *short(usual, there["judges"]), *worst_lines(usual, worst)]
        if title in RUNS:
            draw(title, usual, there["judges"])
    fill(DOCS / "arena-tables.md", BEGIN, "\n\n".join(parts))
    fill(DOCS / "arena.md", BEGIN, "\n\n".join(summary))


def add_page(known: dict[str, dict[str, Any]], page: Path) -> None:
    """Put the systems of a page of one run beside those that are known, or in their place."""
    content = json.loads(page.read_text(encoding="utf-8"))
    concept = content["concept"]
    seeds = {seed for system in content["systems"] for e in system["estimates"] for seed in e["seeds"]}
    if not seeds:  # it has been begun
        return
    if len(seeds) > 1 or not seeds <= {*RUNS.get(concept, ())}:
        raise SystemExit(f"{page} is of {concept}, seeds {sorted(seeds)}: docs/arena.json has one seed of {RUNS} a run")
    (seed,) = seeds
    told = {"concept": concept, "seed": seed, "judges": content["judges"], "systems": {}}
    there = known.setdefault(title_of(concept, seed), told)
    if there["judges"] != content["judges"]:
        raise SystemExit(f"{page} is of other judges than docs/arena.json: numbers of two are not mixed")
    # A run of few sets tells of its own system alone.
    few = [s for s in content["systems"] if s["system"] in FEW]
    for system in few or content["systems"]:
        check_settings(concept, system, page)
        name, again = system["system"], AGAIN in page.parents[2].name
        if again and name not in there["systems"]:
            raise SystemExit(f"{page}: docs/arena.json has no {name} that was made again there")
        join = joined if again else merged
        try:
            there["systems"][name] = join(there["systems"].get(name, system), system)
        except ValueError as error:
            raise SystemExit(f"{page}: {error}") from None


def check_settings(concept: str, system: Mapping[str, Any], page: Path) -> None:
    """Fail for a system that was made under other settings than are recommended now: its numbers say nothing of it."""
    if other := differences(concept, system):
        raise SystemExit(f"{page}: {system['system']} was made under other settings: {'; '.join(other)}. Make it again")


def draw(concept: str, standings: Sequence[Standing], judges: Sequence[str]) -> None:
    """The arena's figure as docs/arena.png, or of another concept than the first as docs/arena-CONCEPT.png.

    docs/arena-short.png has the first concept's erasers on a few panels.
    """
    name = "arena.png" if concept == next(iter(RUNS)) else f"arena-{concept}.png"
    with tempfile.TemporaryDirectory() as folder:
        write_arena(Path(folder), concept, standings, judges, machine())
        (DOCS / name).write_bytes((Path(folder) / "arena.png").read_bytes())
    if name == "arena.png":
        few = [s for s in standings if s.kind != "guard"]
        panels = panels_of(few, FRONT, judges)
        told = [panel for panel in panels if 2 * len(panel.marks) > len(few)]  # an attack on a few says little yet
        (DOCS / "arena-short.png").write_bytes(pictures(told, "png")["png"])


def compact(content: Mapping[str, Any]) -> str:
    """JSON with a line an estimate: shorter by half than an indented file, and its changes can be read."""
    return json.dumps(content, ensure_ascii=False).replace('{"metric"', '\n{"metric"') + "\n"
