"""The stages as plain functions, in order: what the command line and `import duo_unlearn` run.

Each stage reads from and writes to the run folder, and skips what is done under the same settings.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .arena.evaluation import evaluate
from .errors import DuoError
from .records import Estimate, Pair
from .runs.folder import Run
from .runs.machine import alone, is_first_process
from .session import Session, State


def make_pairs(session: Session) -> tuple[list[Pair], State]:
    """Pairs of unsafe images and safe counterparts: made by SDEdit, or taken from the user's folder."""
    from .pairs.own_pairs import import_pairs
    from .pairs.sheet import contact_sheet
    from .pairs.synthesize import make_pairs as synthesize

    alone("pairs")
    settings, folder = session.settings.pairs, session.run.pairs
    begin, manifest = session.begin(), folder / "manifest.json"
    before = manifest.stat().st_mtime_ns if manifest.exists() else None
    if settings.folder is not None:
        pairs = import_pairs(settings.folder, folder, quiet=session.quiet)
    else:
        pairs = synthesize(
            session.model,
            session.detector,
            session.concept,
            folder,
            scale=settings.scale,
            guidance=settings.guidance,
            steps=settings.steps,
            strength=settings.strength,
            batch=settings.batch,
            tries=settings.tries,
            seed=session.settings.seed,
            quiet=session.quiet,
        )
    state: State = "already done" if manifest.stat().st_mtime_ns == before else "done"
    if state == "done" or not (folder / "sheet.png").exists():
        contact_sheet(folder, folder / "sheet.png")
    return pairs, session.finish("pairs", time.monotonic() - begin, state)


def train(session: Session) -> State:
    """Train the adapter on the run's pairs, and save it with its provenance."""
    from accelerate import PartialState

    from .edits.lora import read_provenance, save_adapter
    from .erasers.checkpoint import identity
    from .erasers.latents import build_cache
    from .erasers.trainer import train as run_training
    from .pairs.own_pairs import load_pairs

    begin, run, settings = session.begin(), session.run, session.settings
    if not (run.pairs / "manifest.json").exists():
        raise DuoError(f"{run.folder} holds no pairs", hint="run `duo pairs` first, or `duo erase` for all stages")
    pairs = [pair for pair in load_pairs(run.pairs) if pair.keep]
    if not pairs:
        raise DuoError(f"every pair in {run.pairs} is dropped", hint="set keep to true for some in manifest.json")
    key = identity(settings.train, pairs, session.model, settings.seed)
    known = read_provenance(run.adapter)
    if run.adapter_weights.exists() and (known.get("key"), known.get("steps")) == (key, settings.train.max_train_steps):
        return session.finish("train", time.monotonic() - begin, "already done")
    # Of several processes the first one encodes, and the others read what it wrote.
    with PartialState(cpu=session.model.device.type == "cpu").main_process_first():
        cache = build_cache(session.model, pairs, run.pairs, run.moments, captions=settings.train.captions)
    with session.model.denoiser_alone():
        trained = run_training(
            session.model, cache, pairs, run, settings.train, seed=settings.seed, quiet=session.quiet
        )
    if is_first_process():
        save_adapter(session.model, run.adapter, _provenance(session, pairs, key, trained.steps))
    return session.finish("train", time.monotonic() - begin, "done")


def _provenance(session: Session, pairs: list[Pair], key: str, steps: int) -> dict[str, Any]:
    settings = session.settings
    return {
        "made_by": f"duo_unlearn {version('duo_unlearn')}",
        "concept": session.concept.name,
        "model": settings.model,
        "base": session.model.fingerprint(),
        "seed": settings.seed,
        "steps": steps,
        "settings": settings.train.model_dump(mode="json"),
        "pairs": [[pair.unsafe_sha256, pair.safe_sha256] for pair in pairs],
        "key": key,
    }


def report(run: Run, *, images: bool = True) -> Path:
    """Write the run's page from what the run folder holds; images=False: one with counts alone, to share."""
    from .report.page import write_report

    if not run.folder.is_dir():
        raise DuoError(f"there is no run folder {run.folder}", hint="run `duo erase` first")
    return write_report(run, images=images)


def erase(session: Session, say: Callable[[str], None] = lambda _text: None) -> list[Estimate]:
    """All stages: pairs, train, evaluate, report. Finished ones are skipped; say(text) is told which."""
    alone("erase")
    with session.run.lock():
        pairs, state = make_pairs(session)
        say(f"pairs: {state}, {sum(pair.keep for pair in pairs)} of {len(pairs)} kept")
        state = train(session)
        say(f"train: {state}, {session.settings.train.max_train_steps} steps → {session.run.adapter_weights}")
    # From here on others may join with `duo evaluate`.
    with session.run.lock(shared=True):
        estimates, state = evaluate(session)
        say(f"evaluate: {state}, {len(estimates)} estimates → {session.run.results}")
        say(f"report: done → {report(session.run)}")
    return estimates
