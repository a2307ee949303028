"""Searches of a red team over prompts side by side, as attacks run them, against one prompt at a time: the mini model.

The searches are those whose prompts share their passes, with their quick budgets or, for a shorter run, with --share of
their steps. Both ways have the same randomness, and the same model is attacked: the original. Ring-A-Bell searches one
prompt after the other. What it would gain by sharing is measured on its encoder: the candidates of all prompts in one
call, against a call a prompt. Their distances must be the same.

python benchmarks/red_team.py            # a table
python benchmarks/red_team.py --json     # and one line of figures, last
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from ratios import Ratio, ratio, report, seconds

import duo_unlearn as duo
from duo_unlearn.arena.target import target_of
from duo_unlearn.attacks.interface import Target
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.attacks.ring_a_bell import distances
from duo_unlearn.families.tokens import plain_tokens
from duo_unlearn.records import ORIGINAL, Prompt
from duo_unlearn.runs.machine import keep_freed_memory
from duo_unlearn.runs.search_state import NO_STATE
from duo_unlearn.session import machine

STEPS: Final = {"p4d": "steps", "unlearndiffatk": "steps", "sneakyprompt": "queries", "tina": "steps"}
"""Attack → the field of its budget that says how long it searches."""
NEW: Final = 10
"""How many new candidates a generation of Ring-A-Bell's quick budget has, about: the others were measured before."""


def prompts_of(count: int) -> list[Prompt]:
    """Prompts that ask for the concept, each another one."""
    colours = ("red", "blue", "green", "yellow")
    return [Prompt(f"a {colours[i % 4]} knight with a sword, {i // 4 + 1}", {}) for i in range(count)]


def searched(name: str, target: Target, budget: Any, prompts: list[Prompt], *, together: bool) -> None:
    """What an attack finds for the prompts, in one call or in a call each."""
    size, seeds = len(prompts) if together else 1, list(range(len(prompts)))
    for first in range(0, len(prompts), size):
        part = slice(first, first + size)
        ATTACKS.get(name).find(target, prompts[part], seeds[part], budget, lambda _share: None, NO_STATE)


def encoder_row(target: Target, count: int, rounds: int) -> Ratio:
    """Ring-A-Bell's encoder: a call a prompt over all prompts in one."""
    model, generator = target.model, torch.Generator().manual_seed(0)
    plain = plain_tokens(model)
    candidates = plain[torch.randint(0, len(plain), (count * NEW, 16), generator=generator)]
    found = []
    with torch.no_grad():
        wanted = model.condition(["a red knight with a sword"]).text[0]
        parts = [candidates[i : i + NEW] for i in range(0, len(candidates), NEW)]
        apart = torch.cat([distances(model, wanted, part) for part in parts])
        torch.testing.assert_close(distances(model, wanted, candidates), apart)
        for _ in range(rounds):
            alone = seconds(lambda: [distances(model, wanted, part) for part in parts])
            found.append((alone, seconds(lambda: distances(model, wanted, candidates))))
    return ratio("ring-a-bell's encoder: a call a prompt ÷ one call for all", found)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3, help="of each, in turn")
    parser.add_argument("--share", type=float, default=0.2, help="of the quick budget's steps")
    parser.add_argument("--json", action="store_true", help="one line of figures, last")
    arguments = parser.parse_args()
    keep_freed_memory()  # as `duo` does
    prompts = prompts_of(arguments.prompts)
    print(f"{machine()}; mini model, {arguments.prompts} prompts, {arguments.share:g} of the quick budgets")
    with tempfile.TemporaryDirectory() as folder:
        settings = {"pairs.scale": 0.03, "pairs.held_out": 0, "pairs.steps": 8, "evaluate.steps": 20}
        run = duo.open_run(Path(folder) / "run", settings=settings, quiet=True)
        duo.make_pairs(run)
        target, rows = target_of(run, run.system(ORIGINAL), None), []
        for name, field in STEPS.items():
            budget = ATTACKS.get(name).budgets["quick"]
            steps = max(1, round(arguments.share * getattr(budget, field)))
            budget = dataclasses.replace(budget, **{field: steps})
            searched(name, target, budget, prompts[:1], together=True)  # does not count
            found = []
            for _ in range(arguments.rounds):
                alone = seconds(lambda n=name, b=budget: searched(n, target, b, prompts, together=False))
                found.append((alone, seconds(lambda n=name, b=budget: searched(n, target, b, prompts, together=True))))
            rows.append(ratio(f"{name}: one prompt at a time ÷ side by side", found))
        rows.append(encoder_row(target, arguments.prompts, 3 * arguments.rounds))
    facts = {"prompts": arguments.prompts, "rounds": arguments.rounds, "share": arguments.share, "model": "mini"}
    report(rows, facts, as_json=arguments.json)


if __name__ == "__main__":
    main()
