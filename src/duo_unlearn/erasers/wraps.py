"""The wraps that there are. One that joins adds a file and its line here.

A wrap changes how an eraser trains, whichever it is: it takes the eraser's course and gives another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..registry import Registry
from .course import Course, MakeCourse, erase_by
from .interface import Eraser, EraserContext, State

if TYPE_CHECKING:
    from ..storage.forms import Strict


def _no_facts(_options: Any) -> Mapping[str, Any]:
    return {}


class Wrap(NamedTuple):
    """One wrap, as data and a function. settings: the class of its options.

    course(make, context, options): the wrapped course. make sets the eraser's own up, on the same context.
    needs_float32(options): whether it moves the model's own weights, which in half precision would hardly move.
    facts(options): what beside them decides its course, for the provenance.
    """

    name: str
    title: str
    settings: type[Strict]
    course: Callable[[MakeCourse, EraserContext, Any], AbstractContextManager[Course]]
    needs_float32: Callable[[Any], bool]
    facts: Callable[[Any], Mapping[str, Any]] = _no_facts


WRAPS: Final[Registry[Wrap]] = Registry("wrap", {"meta-unlearning": "erasers.meta_unlearning:META_UNLEARNING"})


def edit_name(eraser: str, wrap: str | None) -> str:
    """The name of the edit that an eraser makes, wrapped or not."""
    return eraser if wrap is None else f"{wrap}-{eraser}"


def round_name(edit: str, number: int) -> str:
    """The name of an edit's earlier round; the last round has the edit's own."""
    return f"{edit}-round-{number}"


def is_round(name: str, edit: str) -> bool:
    """Whether a name is that of an edit's earlier round."""
    return name.startswith(start := round_name(edit, 0)[:-1]) and name.removeprefix(start).isdecimal()


def whole_name(edit: str, floor: str | None) -> str:
    """The name of an edit and what lies below it, as one system."""
    return edit if floor is None else f"{floor}+{edit}"


def why_not_wrapped(eraser: Eraser) -> str | None:
    """Why an eraser cannot be wrapped, or None."""
    return None if eraser.course is not None else "it is a closed form: there is no training to wrap"


def wrapped(eraser: Eraser, name: str, options: Mapping[str, Any]) -> Eraser:
    """An eraser in the wrap of a name. It has a course, as `why_not_wrapped` tells; it trains on one process."""
    wrap, inner = WRAPS.get(name), eraser.course
    assert inner is not None
    settings = wrap.settings.model_validate(options)

    def make(context: EraserContext) -> AbstractContextManager[Course]:
        return wrap.course(inner, context, settings)

    def erase(context: EraserContext, edit: str) -> State:
        from ..storage.forms import deciding

        described = {"name": name, "settings": deciding(settings), **wrap.facts(settings)}
        known = context._replace(provenance={**context.provenance, "wrap": described})
        return erase_by(make, keeps=True, facts=eraser.facts)(known, edit)

    title = f"{eraser.title}; {wrap.title}"
    return eraser._replace(name=edit_name(eraser.name, name), title=title, erase=erase, trains=False, course=make)
