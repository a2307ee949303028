"""The package in Python: the same stages as the commands. Heavy imports wait until a function is called."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .records import Estimate, Pair

if TYPE_CHECKING:
    from .session import Session


def _session(model: str, concept: str, output: str | Path, settings: Mapping[str, Any] | None, quiet: bool) -> Session:
    from .session import Session
    from .settings.resolve import resolve_settings
    from .settings.tree import merged, nested

    given = merged({"model": model, "concept": concept, "output": Path(output)}, nested(settings or {}))
    return Session(resolve_settings(given), quiet=quiet)


def erase(
    model: str = "mini",
    concept: str = "sword",
    output: str | Path = "runs/erase",
    *,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> list[Estimate]:
    """Erase a concept: pairs, training, evaluation and report, in the folder `output`. Gives the estimates.

    model: "mini", a local diffusers folder, or a hub id. concept: a shipped concept's name or a concept file.
    settings: dotted keys, e.g. {"train.beta": 250}; `duo check` lists them. The same call resumes, and skips what is
    done. The adapter is in `output`/adapter. Raises DuoError on anything that the caller can mend.
    """
    from .pipeline import erase as run_all

    return run_all(_session(model, concept, output, settings, quiet))


def make_pairs(
    model: str = "mini",
    concept: str = "sword",
    output: str | Path = "runs/erase",
    *,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> list[Pair]:
    """Make (or import, with settings {"pairs.folder": ...}) the pairs of a run. Arguments as for `erase`."""
    from .pipeline import make_pairs as run_stage

    session = _session(model, concept, output, settings, quiet)
    with session.run.lock():
        return run_stage(session)[0]


def train(
    model: str = "mini",
    concept: str = "sword",
    output: str | Path = "runs/erase",
    *,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> Path:
    """Train the adapter on the run's pairs; gives its file (diffusers LoRA). Arguments as for `erase`."""
    from .pipeline import train as run_stage

    session = _session(model, concept, output, settings, quiet)
    with session.run.lock():
        run_stage(session)
    return session.run.adapter_weights


def evaluate(
    model: str = "mini",
    concept: str = "sword",
    output: str | Path = "runs/erase",
    *,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> list[Estimate]:
    """Measure the run's adapter beside the original model; gives the estimates. Arguments as for `erase`."""
    from .arena.evaluation import evaluate as run_stage

    session = _session(model, concept, output, settings, quiet)
    with session.run.lock(shared=True):
        return run_stage(session)[0]
