"""An eraser that trains by gradient descent, from its course: what is trained, by which loss, and what is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .interface import Eraser, EraserContext, Facts, Makes, Reads, State, no_facts
from .words import left_out

if TYPE_CHECKING:
    from ..families.family import Family
    from ..records import Level
    from ..storage.forms import Strict
    from .descent import Descent


class Course(NamedTuple):
    """A training that is ready to run. write(folder, provenance): writes the edit that came of it.

    passes: rows that went through the denoiser before its first step, e.g. for a mask, or pictures that it trains on.
    """

    descent: Descent
    write: Callable[[Path, Mapping[str, Any]], object]
    passes: int = 0


MakeCourse = Callable[[EraserContext], AbstractContextManager[Course]]
"""Sets a course up on the context's model, and puts the model back at the end of the block."""


def course_eraser(
    name: str,
    title: str,
    settings: type[Strict],
    reads: Reads,
    why_not: Callable[[Family], str | None],
    make: MakeCourse,
    level: Level = "generator",
    makes: Makes = "weights",
    *,
    keeps: bool = False,
    facts: Facts = no_facts,
) -> Eraser:
    """The eraser of a course: it resumes, and knows its edit again under the same settings. Others: see `erase_by`."""
    erase = erase_by(make, keeps=keeps, facts=facts)
    return Eraser(name, title, settings, reads, why_not, erase, course=make, level=level, makes=makes, facts=facts)


def erase_by(
    make: MakeCourse, *, keeps: bool = False, facts: Facts = no_facts
) -> Callable[[EraserContext, str], State]:
    """The `erase` of a course. The edit's provenance says how many rows went through the denoiser (`passes`).

    keeps: whether it is given prompts of the concept's `keep`. facts: as of `Eraser`; they are part of the key.
    """

    def erase(context: EraserContext, name: str) -> State:
        from ..edits.provenance import CHANGES, WEIGHTS, edit_hash, read_provenance
        from ..storage.files import digest
        from ..storage.forms import deciding
        from .descent import descend

        context = context._replace(provenance={**context.provenance, **facts(context)})
        folder, settings = context.run.edit(name), context.options.model_dump(mode="json")
        seen = [pair.content for pair in context.pairs]
        # Neither this package's version nor the model's path decides the course; the concept's words may.
        known = {k: v for k, v in context.provenance.items() if k not in ("made_by", "model")}
        words = context.concept.model_dump(mode="json", include={"fill", "pairs", "attacks", "keep", "neighbours"})
        asked = left_out(context, keeps=keeps)
        basis = [name, deciding(context.options), seen, known, words, context.model.variant, context.seed]
        key = digest([*basis, asked] if asked else basis)
        there = any((folder / file).exists() for file in (WEIGHTS, CHANGES))
        if there and read_provenance(folder).get("key") == key:
            edit_hash(folder)
            return "already done"
        with make(context) as course:
            passes = course.passes
            passes += descend(course.descent, context.model.denoiser, context.run, name, key, quiet=context.quiet)
            pairs = [entry[:2] for entry in seen]
            described = {"settings": settings, "steps": course.descent.steps, "passes": passes, "pairs": pairs}
            course.write(folder, {**context.provenance, **described, "key": key})
        context.run.checkpoint(name).unlink(missing_ok=True)  # as large as three times what was trained
        return "done"

    return erase
