"""The verbs of an edit that leaves its run: export, verify, sample. Heavy imports wait for a call."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arena.verify import Verified
    from .export.export import Exported

importlib.import_module(f"{__package__}.export")  # as `pipeline` loads the room `report`


def export(source: str | Path, output: str | Path, form: str = "diffusers", **options: Any) -> Exported:
    """Write an edit in a form that others load, load it back, and compare its images. Options: see `export.export`.

    The statement beside it must follow from the run's attempts, or nothing is written.
    """
    from .arena.verify import check_numbers
    from .export.export import export as write

    return write(Path(source), Path(output), form, check=check_numbers, **options)


def verify(
    folder: str | Path,
    *,
    base: str | None = None,
    concept: str | None = None,
    remeasure: int = 0,
    seed: int = 0,
    device: str = "auto",
) -> Verified:
    """Check an exported folder against its statement, and sample some of what it measured again.

    base, concept: where they lie, if not under the names that the statement has. remeasure: how many prompts of each
    set are sampled again, which ones decided by the seed; 0: none.
    """
    from .arena.remeasure import remeasure as sample_again
    from .arena.verify import verify as check

    found = check(Path(folder), base=base, device=device)
    if not remeasure or found.has("differs"):  # of a folder that is another one it would say nothing
        return found
    again = sample_again(Path(folder), remeasure, base=base, concept=concept, seed=seed, device=device)
    return found._replace(checks=[*found.checks, *again])


def sample(prompts: Sequence[str], output: str | Path, **options: Any) -> Path:
    """Write a sheet of images of a model, with or without an edit. Options: see `arena.samples.sample_sheet`."""
    from .arena.samples import sample_sheet

    sample_sheet(prompts, Path(output), **options)
    return Path(output)
