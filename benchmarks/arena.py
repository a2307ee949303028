"""The arena on the mini model: every eraser and guard, one judge → arena.json, arena-tables.md, arena.png in docs/.

python benchmarks/arena.py                                    # a day on 2 cores; what is done is skipped, so it resumes
python benchmarks/arena.py --system uce --attack p4d          # a part; writes nothing
python benchmarks/arena.py --system uce --attack p4d --alone  # of an eraser that docs/arena.json has: attacks alone
python benchmarks/arena.py --write                            # docs/ from what is there

Settings are those that the concept file recommends for the mini model: chosen on development prompts and seed 100
(docs/notes/rivals-sweep.jsonl), which nothing here uses. Parts of one run may be made by several processes at once. Run
folders need not be kept: `--write` puts what they hold beside what docs/arena.json has.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from arena_entries import merged, standing_of
from arena_settings import ALL, ROBUST, differences, given_options
from arena_tables import costs, short, table, tables, worst_lines
from concept_sets import content_of, with_sets, write_concept
from pages import fill

import duo_unlearn as duo
from duo_unlearn.arena.plans import AttackPlan
from duo_unlearn.arena.sharing import share_originals, share_pairs
from duo_unlearn.arena.stages import make_pairs
from duo_unlearn.attacks.interface import Preset
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.experiments.arena import arena, make_edits, makers
from duo_unlearn.pairs.manifest import MANIFEST
from duo_unlearn.records import ORIGINAL
from duo_unlearn.report.arena import (
    Column,
    Standing,
    columns,
    panels_of,
    write_arena,
)
from duo_unlearn.report.arena_figure import pictures
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.machine import keep_freed_memory
from duo_unlearn.runs.results import WORST
from duo_unlearn.session import Session, machine
from duo_unlearn.several import run_arena
from duo_unlearn.storage.files import digest, write_text

ERASERS: Final = (
    "duo", "uce", "rece", "hirm", "esd-x", "esd-u", "spm", "eraseflow", "advunlearn", "stereo", "salun",
    "diffusion-dpo", "dcpo",
)  # fmt: skip
WRAPPED: Final = {"meta-unlearning-esd-x": "esd-x,wrap=meta-unlearning"}
"""Erasers in a wrap, and what follows NAME= of their entrant."""
GUARDS: Final = (
    "negative-prompt",
    "inverted-negative",
    "sld",
    "safree",
    "spell",
    "ce-sdwv",
    "prototypes",
    "pno",
    "output-filter",
)
WORDED: Final = (
    "uce", "rece", "hirm", "esd-x", "esd-u", "spm", "eraseflow", "advunlearn", "stereo", "salun"
)  # fmt: skip
"""Erasers that read words: each is asked again as NAME-all, with prompts of every wording, and not attacked again."""
ATTACKED: Final = (
    "ring-a-bell", "sneakyprompt", "concept-inversion", "soft-prompt", "unlearndiffatk", "p4d", "p4d-k",
    "image-to-image", "image-to-image-empty", "image-to-image-30", "image-to-image-empty-30", "tina", "inpainting",
    "completion", "noise-search",
)  # fmt: skip
"""Attacks in the order that they are made in: what costs least and tells most comes first."""
SEEDS: Final = {"sword": (0,), "balloon": (0,)}
COUNT: Final = 50
"""Prompts of each set."""
ATTACKED_PROMPTS: Final = {"quick": COUNT, "paper": 32}
"""Prompts that are attacked, by preset: the first of the direct ones."""
FEW: Final = {"pno": ("direct",)}
"""What costs some 76 images an image is asked these sets and what must stay, in a folder of its own, unattacked."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/arena"), help="holds a run folder a concept and seed")
    parser.add_argument("--concept", action="append", choices=SEEDS)
    parser.add_argument("--system", action="append", help="an eraser, NAME-all, guards behind a +; all when not given")
    parser.add_argument("--attack", action="append", choices=("none", *ATTACKED), help="none: erase and measure")
    parser.add_argument("--preset", choices=("quick", "paper"), default="quick")
    parser.add_argument("--alone", action="store_true", help="attack, and ask no prompt sets: docs/arena.json has them")
    parser.add_argument("--write", action="store_true", help="docs/ from what is there, and run nothing")
    given = parser.parse_args()
    attacks = [name for name in given.attack or ATTACKED if name != "none"]
    there = [name for name in (*ERASERS, *WRAPPED, *GUARDS) if name not in FEW]
    if given.alone and not (given.system and attacks and set(given.system) <= set(there)):
        parser.error(f"--alone takes --attack, and --system of these: {', '.join(there)}")
    keep_freed_memory()  # as `duo` does
    for concept in [] if given.write else given.concept or list(SEEDS)[:1]:
        for seed in SEEDS[concept]:
            systems = given.system or every_system()
            make = attack_alone if given.alone else one_run
            make(given.runs, concept, seed, systems, attacks, given.preset)
    if given.write or not (given.concept or given.system or given.attack):
        write_pages(given.runs)


def one_run(
    runs: Path, concept: str, seed: int, systems: Sequence[str], attacks: Sequence[str], preset: Preset
) -> None:
    """Make, measure and attack the systems of one run."""
    folder = runs / f"{concept}-{seed}"
    worded = [name for name in systems if name.endswith(ALL)]
    usual = [name for name in systems if name not in (*FEW, ROBUST, *worded)]
    if usual:
        run = open_run(folder, concept, seed, COUNT)
        entrants = wrapped(usual)
        run_arena([run], usual, page_of(folder, usual), entrants=entrants, attacks=plans_of(attacks, preset), say=print)
    if ROBUST in systems:  # its floor is another UCE than the arena's own, so it has a folder of its own
        run = open_run(folder.with_name(f"{folder.name}-robust"), concept, seed, COUNT, recipe="robust")
        share(Run(folder), run)
        page = page_of(run.run.folder, [ROBUST])
        run_arena([run], [ROBUST], page, attacks=plans_of(attacks, preset), say=print)
    if worded:
        run = open_run(folder, concept, seed, COUNT)
        entrants = [f"{name}={name.removesuffix(ALL)},wordings=all" for name in worded]
        run_arena([run], worded, page_of(folder, worded), entrants=entrants, say=print)
    for name in (name for name in systems if name in FEW):
        own = folder.with_name(f"{folder.name}-{name}")
        few = write_concept(own.with_suffix(".yaml"), with_sets(content_of(concept), FEW[name]))
        run = open_run(own, few, seed, COUNT)
        share(Run(folder), run)
        run_arena([run], [name], page_of(run.run.folder, [name]), say=print)


def attack_alone(
    runs: Path, concept: str, seed: int, systems: Sequence[str], attacks: Sequence[str], preset: Preset
) -> None:
    """Attack erasers whose other numbers docs/arena.json has, made again where this run lacks them.

    Those numbers are of the weights to the last bit, so weights that differ are refused before anything is attacked:
    another kind of processor rounds otherwise.
    """
    folder = runs / f"{concept}-{seed}"
    run, page = open_run(folder, concept, seed, COUNT), page_of(folder, [*systems, preset, *attacks])
    there = json.loads((DOCS / "arena.json").read_text(encoding="utf-8"))["concepts"][concept]["systems"]
    entrants = wrapped(systems)
    with run.run.lock(shared=True):
        make_pairs(run)
        make_edits(run, makers(entrants, systems))
        for name in systems:
            known, made = {e["sha256"] for e in there[name]["estimates"]}, run.system(name).sha256
            if made not in known:
                is_, was = made[:8], ", ".join(sorted(one[:8] for one in known))
                raise SystemExit(f"{name} has other weights than docs/arena.json tells of: {is_}, not {was}")
    arena([run], entrants, systems, plans_of(attacks, preset), page, print, asks=False)


def plans_of(attacks: Sequence[str], preset: Preset) -> list[AttackPlan]:
    """Each attack; and of one that searches on a model, once more by a search that sees what guards change."""
    return [
        AttackPlan([name], preset, ATTACKED_PROMPTS[preset], aware=aware)
        for name in attacks
        for aware in ([False, True] if ATTACKS.get(name).found_on == "model" else [False])
    ]


def wrapped(systems: Sequence[str]) -> list[str]:
    """The entrants of those systems that are erasers in a wrap."""
    return [f"{name}={WRAPPED[name]}" for name in systems if name in WRAPPED]


def share(source: Run, target: Session) -> None:
    """Copy a run's pairs and what it has of the original, so that none is made twice."""
    with target.run.claim("share", wait=True):
        if (source.pairs / MANIFEST).exists():
            share_pairs(source, target.run, target.settings.edit)
            share_originals(source, target.run)


def page_of(folder: Path, systems: Sequence[str]) -> Path:
    """Where the page of some systems of a run is: parts of one run may be made side by side, and one after another."""
    many = f"{systems[0]}-and-{len(systems) - 1}-{digest(list(systems))[:8]}"
    return folder / "arena" / ("-".join(systems) if len(systems) < 3 else many)


def open_run(folder: Path, concept: str, seed: int, count: int, recipe: str | None = None) -> Session:
    """A run that asks `count` prompts of each set, and half as many of a neighbour. A recipe brings its own options."""
    counts = {"prompts": count, "keep_prompts": count, "neighbour_prompts": count // 2, "inversion_prompts": 0}
    options = given_options(concept) if recipe is None else {"recipe": recipe}
    given = {**{f"evaluate.{key}": value for key, value in counts.items()}, **options, "seed": seed}
    return duo.open_run(folder, concept=concept, settings=given)


def write_pages(runs: Path) -> None:
    """Write arena.json, the tables and the picture from the runs' pages, and from arena.json what these do not hold."""
    path = DOCS / "arena.json"
    known = json.loads(path.read_text(encoding="utf-8"))["concepts"] if path.exists() else {}
    for page in sorted(runs.glob("*/arena/*/arena.json"), key=lambda page: page.stat().st_mtime):
        content = json.loads(page.read_text(encoding="utf-8"))
        there = known.setdefault(content["concept"], {"judges": content["judges"], "systems": {}})
        if there["judges"] != content["judges"]:
            raise SystemExit(f"{page} is of other judges than {path}: numbers of two are not mixed")
        # A run of few sets tells of its own system alone.
        few = [s for s in content["systems"] if s["system"] in FEW]
        for system in few or content["systems"]:
            check_settings(content["concept"], system, page)
            mine = there["systems"].setdefault(system["system"], system)
            there["systems"][system["system"]] = merged(mine, system)
    for there in known.values():
        there["systems"] = {name: there["systems"][name] for name in in_order(there["systems"])}
    write_text(path, compact({"version": 1, "model": "mini", "machine": machine(), "concepts": known}))
    parts = []
    for concept, there in known.items():
        standings = [standing_of(system) for system in there["systems"].values()]
        usual = [standing for standing in standings if not standing.system.endswith(ALL)]
        parts += tables(concept, usual, there["judges"])
        draw(concept, usual, there["judges"])
        if worded := [standing for standing in standings if standing not in usual]:
            plain = [place for place in columns(worded) if place.attack is None]
            parts += [
                f"### {concept}: erasers that were given every wording", table(worded, plain, there["judges"]),
                costs(worded, there["judges"]),
            ]  # fmt: skip
    fill(DOCS / "arena-tables.md", BEGIN, "\n\n".join(parts))
    there = next(iter(known.values()))
    standings = [standing_of(system) for system in there["systems"].values()]
    usual = [s for s in standings if not s.system.endswith(ALL)]
    fill(DOCS / "arena.md", BEGIN, "\n\n".join([*short(usual, there["judges"]), *worst_lines(usual, FRONT[-1:])]))


def check_settings(concept: str, system: Mapping[str, Any], page: Path) -> None:
    """Fail for a system that was made under other settings than are recommended now: its numbers say nothing of it."""
    if other := differences(concept, system):
        raise SystemExit(f"{page}: {system['system']} was made under other settings: {'; '.join(other)}. Make it again")


def every_system() -> list[str]:
    """The systems of the arena in order: erasers, guards, and erasers that are given every wording."""
    return [*ERASERS, *WRAPPED, ROBUST, *GUARDS, *(name + ALL for name in WORDED)]


def in_order(names: Mapping[str, Any]) -> list[str]:
    """The original, erasers and guards, then other systems by name."""
    usual = [ORIGINAL, *every_system()]
    return sorted(names, key=lambda name: (usual.index(name) if name in usual else len(usual), name))


def draw(concept: str, standings: Sequence[Standing], judges: Sequence[str]) -> None:
    """The arena's figure as docs/arena.png, or of another concept than the first as docs/arena-CONCEPT.png.

    docs/arena-short.png has the first concept's erasers on a few panels.
    """
    name = "arena.png" if concept == next(iter(SEEDS)) else f"arena-{concept}.png"
    with tempfile.TemporaryDirectory() as folder:
        write_arena(Path(folder), concept, standings, judges, machine())
        (DOCS / name).write_bytes((Path(folder) / "arena.png").read_bytes())
    if name == "arena.png":
        there = columns(standings)
        few = [s for s in standings if s.kind != "guard"]
        panels = panels_of(few, [place for place in FRONT if place in there], judges)
        told = [panel for panel in panels if 2 * len(panel.marks) > len(few)]  # an attack on a few says little yet
        (DOCS / "arena-short.png").write_bytes(pictures(told, "png")["png"])


def compact(content: Mapping[str, Any]) -> str:
    """JSON with a line an estimate: shorter by half than an indented file, and its changes can be read."""
    return json.dumps(content, ensure_ascii=False).replace('{"metric"', '\n{"metric"') + "\n"


if __name__ == "__main__":
    main()
