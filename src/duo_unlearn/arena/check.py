"""Checking a whole run folder: every file that carries a hash, and every image, is compared; nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ..edits.files import read_edit
from ..edits.provenance import edit_hash, edit_names
from ..errors import DuoError
from ..pairs.manifest import MANIFEST, load_pairs
from ..runs.attempts import read_sealed
from ..runs.folder import Run
from ..runs.labels import read_labels
from ..runs.results import read_results
from ..runs.rounds import bank_file
from ..settings.tree import read_settings
from ..storage.files import read_object, sha256_of
from .findings import tensors_fault


class Checked(NamedTuple):
    """Every fault, and how many files were checked."""

    faults: list[DuoError]
    files: int


def check_run(folder: Path) -> Checked:
    """Check settings, record, pairs, edits, attempts with their images, verdicts and results of a run folder.

    Each fault says which command makes the file again.
    """
    run = Run(folder)
    run.check_form()
    if not run.settings.exists() and not run.record.exists():
        raise run.no_run("a folder that `duo erase` or `duo attack` made")
    faults: list[DuoError] = []
    checks = list(_checks(run))
    for check in checks:
        try:
            check()
        except DuoError as error:
            faults.append(error)
    return Checked(faults, len(checks))


def _checks(run: Run) -> Iterator[Callable[[], Any]]:
    whole: tuple[tuple[Path, Callable[[], Any]], ...] = (
        (run.settings, partial(read_settings, run.settings)),
        (run.record, partial(read_object, run.record)),
        (run.pairs / MANIFEST, partial(load_pairs, run.pairs)),
        (run.held_out / MANIFEST, partial(load_pairs, run.held_out)),
        (run.preservation, partial(read_sealed, run.preservation)),
        (run.labels, partial(read_labels, run)),
        (run.results, partial(read_results, run)),
    )
    yield from (check for path, check in whole if path.exists())
    for name in edit_names(run.edits):
        yield partial(read_edit, run.edit(name), name)
    for path in sorted(run.rounds.glob("*.json")):
        yield partial(_check_rounds, run, path)
    for path in sorted(run.folder.glob("train/*/kept/*/")):
        yield partial(edit_hash, path)
    for path in sorted(run.attempts.glob("*/*/*/*.json")):
        if path.name == "group.json":
            yield partial(read_sealed, path)
        elif path.name.startswith("found-"):
            yield partial(_check_findings, path)
        else:
            yield partial(_check_part, run, path)
    for path in sorted(run.verdicts.glob("*.json")):
        yield partial(read_sealed, path)


def _check_rounds(run: Run, path: Path) -> None:
    """The rounds of an edit, and the captions that each left."""
    for one in read_sealed(path)["rounds"]:
        bank = bank_file(run, one["edit"])
        if one["bank"] is not None and (not bank.is_file() or sha256_of(bank) != one["bank"]):
            got = "its SHA-256 differs" if bank.is_file() else "it is missing"
            raise DuoError(f"{bank} is not the bank that was written", got=got, hint="`duo train` makes it again")


def _check_findings(path: Path) -> None:
    """What a search found, and the tensors that it names."""
    if (fault := tensors_fault(path, read_sealed(path))) is not None:
        raise fault


def _check_part(run: Run, path: Path) -> None:
    """A part, and each image that it names."""
    for entry in read_sealed(path, free=("seconds",))["attempts"]:
        if entry["file"] is None:
            continue
        image = run.folder / entry["file"]
        hint = "`duo evaluate` or `duo attack` samples it again"
        if not image.is_file():
            raise DuoError(f"{image} is missing", got=f"{path.name} names it", hint=hint)
        if sha256_of(image) != entry["sha256"]:
            raise DuoError(f"{image} is not the image that was sampled", got="its SHA-256 differs", hint=hint)
