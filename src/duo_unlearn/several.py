"""The verbs of several runs, once, as `pipeline` has those of one. Heavy imports wait for a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DuoError
from .pipeline import Say, reopen_run, silent

if TYPE_CHECKING:
    from .arena.plans import AttackPlan
    from .experiments.compare import Comparison
    from .experiments.ledger import Entry
    from .experiments.sweep import SweepResult
    from .report.frontier import Kind
    from .reproduction.results import Reproduction
    from .session import Session


def sweep(
    run: Session,
    kind: Kind,
    values: Sequence[float],
    *,
    attacks: Sequence[AttackPlan] = (),
    want_dsr: float = 0.95,
    say: Say = silent,
) -> SweepResult:
    """Measure and attack a run at several β, each of which is trained, or at several strengths of its adapter."""
    from .experiments.sweep import sweep as measure

    return measure(run, kind, values, attacks=attacks, want_dsr=want_dsr, say=say)


def compare(folders: Sequence[str | Path]) -> Comparison:
    """Runs side by side: their numbers, the spread between seeds, and how attacks transfer."""
    from .experiments.compare import compare as set_side_by_side

    return set_side_by_side([Path(folder) for folder in folders])


def compose(
    sources: Sequence[str | Path], output: str | Path, *, weights: Sequence[float] = (), prompts: int | None = 100
) -> list[dict[str, Any]]:
    """Add adapters up, exactly, into one; gives what each concept and what must stay measure before and after.

    prompts: of each set; None measures nothing, and gives an empty list.
    """
    from .experiments.interference import check_runs, compose_runs, measure

    paths, folder = [Path(source) for source in sources], Path(output)
    if prompts is not None:
        check_runs(paths)
    compose_runs(paths, list(weights), folder)
    if prompts is None:
        return []
    counts = {"prompts": prompts, "keep_prompts": prompts, "neighbour_prompts": max(1, prompts // 2)}
    return measure(paths, folder, counts)


def run_arena(
    runs: Sequence[Session],
    systems: Sequence[str],
    output: str | Path,
    *,
    entrants: Sequence[str] = (),
    attacks: Sequence[AttackPlan] = (),
    say: Say = silent,
) -> Path:
    """Erase by every named way, measure and attack all systems alike, and write one page; gives it.

    runs: of one concept, e.g. of several seeds. systems: names such as "duo" or "uce+safree"; an eraser that a run has
    no edit of is run there. entrants: edits under names of their own, "NAME=ERASER,OPTION=VALUE,…".
    """
    from .experiments.arena import arena

    page = arena(runs, entrants, systems, attacks, Path(output), say)
    say(f"arena: done → {page}")
    return page


def reproduce(
    protocol: str,
    output: str | Path,
    *,
    model: str | None = None,
    seed: int | None = None,
    captions: Path | None = None,
    images: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    say: Say = silent,
) -> Reproduction:
    """Run a publication's protocol, and set what it finds beside what was published (docs/reproduce.md).

    protocol: a shipped one's name, or a .yaml file. model, seed: in place of the protocol's. captions: COCO's file of
    captions; images: the folder of its pictures. settings: dotted keys, over those of the protocol.
    """
    from .reproduction.plan import Brought
    from .reproduction.protocol import load_protocol
    from .reproduction.reproduce import reproduce as run
    from .settings.tree import nest

    brought = Brought(Path(output), model, seed, captions, images, nest(settings or {}))
    return run(load_protocol(protocol), brought, say=say)


def fill_bank(
    run: str | Path | Session,
    output: str | Path,
    attacks: Sequence[str],
    *,
    system: str | None = None,
    prompts: int = 16,
    budgets: Mapping[str, Mapping[str, Any]] | None = None,
    say: Say = silent,
) -> Path:
    """Attack a run's system on training prompts, and keep what is found as captions for robust DUO; gives the file.

    system: a name; None: that of the run's settings. budgets: attack → fields of its budget that are not the quick
    one's, e.g. {"p4d": {"steps": 500}}.
    """
    from .arena.bank import fill_bank as fill
    from .session import Session

    opened = run if isinstance(run, Session) else reopen_run(run)
    chosen = opened.systems()[-1] if system is None else opened.system(system)
    opened.check_change([chosen])
    with opened.run.lock(shared=True):
        return fill(opened, chosen, attacks, prompts, Path(output), budgets, say)


def read_ledger(sources: Sequence[str | Path], pair: str | None = None) -> list[Entry]:
    """Which edit saw which pairs; with a pair, those that saw it and what stands on them.

    Where a run's edit stands on others of the run, its floor or earlier rounds, these come before it.
    """
    from .experiments.ledger import holders, with_below
    from .experiments.ledger import read_ledger as read

    entries = with_below(read([Path(source) for source in sources]))
    return entries if pair is None else holders(entries, pair)


def slice_run(run: str | Path, count: int, say: Say = silent) -> list[Path]:
    """Train a run's pairs as `count` edits, each on a slice of its own; gives their run folders.

    What a pair holds decides its slice, so that where one is dropped its own slice alone is trained again.
    """
    from .experiments.slices import train_slices

    return train_slices(reopen_run(run), count, say)


def sum_of_rest(
    sources: Sequence[str | Path], without: Sequence[str | Path], output: str | Path, weights: Sequence[float] = ()
) -> list[Entry]:
    """Write the exact sum of a ledger's edits without some of them; gives those that are left.

    weights: of every edit of the ledger, in order; 1 each when empty.
    """
    from .experiments.interference import add_up
    from .experiments.ledger import read_ledger as read
    from .experiments.ledger import remaining

    entries = read([Path(source) for source in sources])
    left = remaining(entries, [Path(source) for source in without])
    if weights and len(weights) != len(entries):
        got, hint = f"{len(weights)} for {len(entries)}", "repeat --weight, for those that are left out too"
        raise DuoError("there must be one weight an edit of the ledger", got=got, hint=hint)
    kept = [w for w, entry in zip(weights, entries, strict=True) if entry in left] if weights else []
    add_up([entry.source for entry in left], kept, Path(output))
    return left
