"""The arena on the mini model: every eraser and guard, one judge → arena.json, arena-tables.md, arena.png in docs/.

python benchmarks/arena.py --whole                            # all of docs/arena.*, on 2 cores for days
python benchmarks/arena.py                                    # its first run, with quick budgets: a day
python benchmarks/arena.py --concept balloon                  # the best of them on another concept, five hours
python benchmarks/arena.py --seed 1                           # and of another training seed
python benchmarks/arena.py --system uce --attack p4d          # a part; writes nothing
python benchmarks/arena.py --system uce --attack p4d --again  # attacks on what docs/arena.json has and no folder here
python benchmarks/arena.py --write                            # docs/ from what is there

Settings are those that the concept file recommends for the mini model: chosen on development prompts and seed 100
(docs/notes/rivals-sweep.jsonl), which nothing here uses. Parts of one run may be made by several processes at once. Run
folders need not be kept: `--write` puts what they hold beside what docs/arena.json has. What is done is skipped, so
every command goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from arena_docs import runs_told, write_pages
from arena_entries import AGAIN
from arena_settings import ALL, FORMS, ROBUST, given_options
from arena_systems import ERASERS, FEW, GUARDS, RUNS, VARIANTS, systems_of, title_of
from concept_sets import content_of, with_sets, write_concept

import duo_unlearn as duo
from duo_unlearn.arena.plans import AttackPlan
from duo_unlearn.arena.sharing import share_originals, share_pairs
from duo_unlearn.attacks.interface import Preset
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.pairs.manifest import MANIFEST
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.machine import keep_freed_memory
from duo_unlearn.session import Session
from duo_unlearn.several import run_arena
from duo_unlearn.storage.files import digest

ATTACKED: Final = (
    "ring-a-bell", "sneakyprompt", "concept-inversion", "soft-prompt", "random-prefix", "unlearndiffatk", "p4d",
    "p4d-k", "image-to-image", "image-to-image-empty", "image-to-image-30", "image-to-image-empty-30", "tina",
    "inpainting", "completion", "noise-search",
)  # fmt: skip
"""Attacks in the order that they are made in: what costs least and tells most comes first."""
PUBLISHED: Final = ("ring-a-bell", "concept-inversion", "unlearndiffatk", "p4d")
"""Those that are made with their published budgets too, on every eraser of the first run and its forms."""
COUNT: Final = 50
"""Prompts of each set."""
ATTACKED_PROMPTS: Final = {"quick": COUNT, "paper": 32}
"""Prompts that are attacked, by preset: the first of the direct ones."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/arena"), help="holds a run folder a concept and seed")
    parser.add_argument("--concept", choices=RUNS, default=next(iter(RUNS)))
    parser.add_argument("--seed", type=int, help="of a concept's training seeds; the first when not given")
    parser.add_argument("--system", action="append", help="an eraser, NAME-all, guards behind a +; all when not given")
    parser.add_argument("--attack", action="append", choices=("none", *ATTACKED), help="none: erase and measure")
    parser.add_argument("--preset", choices=("quick", "paper"), default="quick")
    parser.add_argument("--again", action="store_true", help="make what docs/arena.json has again, and attack it")
    parser.add_argument("--whole", action="store_true", help="every concept, training seed and budget")
    parser.add_argument("--write", action="store_true", help="docs/ from what is there, and run nothing")
    given = parser.parse_args()
    attacks = [name for name in given.attack or ATTACKED if name != "none"]
    seed = RUNS[given.concept][0] if given.seed is None else given.seed
    if seed not in RUNS[given.concept]:
        parser.error(f"--seed of {given.concept} is one of {', '.join(map(str, RUNS[given.concept]))}")
    told = runs_told().get(title_of(given.concept, seed), {}).get("systems", {})
    there = [name for name in (*ERASERS, *VARIANTS, ROBUST, *GUARDS) if name not in FEW and name in told]
    if given.again and not (given.system and attacks and set(given.system) <= set(there)):
        parser.error(f"--again takes --attack, and --system of those that are told: {', '.join(there) or 'none'}")
    if given.whole and (given.system or given.attack or given.again or given.write):
        parser.error("--whole makes every system and attack, and writes docs/: give no other option but --runs")
    keep_freed_memory()  # as `duo` does
    if given.whole:
        whole(given.runs)
    elif not given.write:
        systems = given.system or systems_of(given.concept, seed)
        make = attack_again if given.again else one_run
        make(given.runs, given.concept, seed, systems, attacks, given.preset)
    if given.write or given.whole or not (given.system or given.attack):
        write_pages(given.runs)


def whole(runs: Path) -> None:
    """Every run with quick budgets, and the first one's erasers with published ones."""
    for concept, seeds in RUNS.items():
        for seed in seeds:
            one_run(runs, concept, seed, systems_of(concept, seed), ATTACKED, "quick")
    first = next(iter(RUNS))
    one_run(runs, first, RUNS[first][0], [*ERASERS, *FORMS], PUBLISHED, "paper")


def one_run(
    runs: Path, concept: str, seed: int, systems: Sequence[str], attacks: Sequence[str], preset: Preset
) -> None:
    """Make, measure and attack the systems of one run."""
    folder = runs / f"{concept}-{seed}"
    worded = [name for name in systems if name.endswith(ALL)]
    usual = [name for name in systems if name not in (*FEW, ROBUST, *worded)]
    if usual:
        run = open_run(folder, concept, seed, COUNT)
        entrants = variants(usual)
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


def attack_again(
    runs: Path, concept: str, seed: int, systems: Sequence[str], attacks: Sequence[str], preset: Preset
) -> None:
    """Make systems whose numbers docs/arena.json has once more, in a folder of their own, and attack them.

    Another kind of processor rounds otherwise, so weights may differ from the first ones. The direct prompts and what
    must stay are asked again, and `--write` holds their numbers beside the first ones.
    """
    first = runs / f"{concept}-{seed}"
    few = write_concept(runs / f"{concept}-{seed}{AGAIN}.yaml", with_sets(content_of(concept), ("direct",)))
    for recipe in (None, "robust"):
        mine = [name for name in systems if (name == ROBUST) == (recipe is not None)]
        if mine:
            folder = runs / f"{concept}-{seed}{AGAIN}{'' if recipe is None else f'-{recipe}'}"
            run = open_run(folder, few, seed, COUNT, recipe=recipe)
            share(Run(first), run)
            page = page_of(folder, [*mine, preset, *attacks])
            run_arena([run], mine, page, entrants=variants(mine), attacks=plans_of(attacks, preset), say=print)


def plans_of(attacks: Sequence[str], preset: Preset) -> list[AttackPlan]:
    """Each attack; and of one that searches on a model, once more by a search that sees what guards change."""
    return [
        AttackPlan([name], preset, ATTACKED_PROMPTS[preset], aware=aware)
        for name in attacks
        for aware in ([False, True] if ATTACKS.get(name).found_on == "model" else [False])
    ]


def variants(systems: Sequence[str]) -> list[str]:
    """The entrants of those systems that are variants of an eraser."""
    return [f"{name}={VARIANTS[name]}" for name in systems if name in VARIANTS]


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


if __name__ == "__main__":
    main()
