"""Whether other values can stand in an attack's budget, asked before anything is searched."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final, get_type_hints

from pydantic import TypeAdapter, ValidationError

MOST_TOKENS: Final = 75
"""Of CLIP's 77 two are the start and the end."""
LONGEST_PATH: Final = 999
"""Of a path: models have 1000 noise levels, and between more steps than that nothing would be drawn."""


def check_path(steps: int) -> None:
    """Fail for a path that no model has. ValueError, for `__post_init__` of a budget."""
    if steps > LONGEST_PATH:
        raise ValueError(f"a path has {LONGEST_PATH} steps at most")


def budget_fault(budget: Any, fields: Mapping[str, Any]) -> str | None:
    """What is wrong with other values of a budget's fields, or None. budget: a preset's."""
    kinds = get_type_hints(type(budget))
    for name, value in fields.items():
        if name not in kinds:
            return f"has no {name}"
        try:
            TypeAdapter(kinds[name]).validate_python(value, strict=True)
        except ValidationError as error:
            return f"has {name}={value!r}: {error.errors()[0]['msg'].lower()}"
        # The preset's own value may be 0, e.g. where an attack makes no benign images.
        if isinstance(value, int | float) and value != getattr(budget, name) and not 0 < value < math.inf:
            return f"has {name}={value!r}: it must be above 0, and finite"
        if name == "tokens" and value is not None and value > MOST_TOKENS:
            return f"has tokens={value!r}: a text encoder of CLIP reads {MOST_TOKENS} at most"
    try:
        dataclasses.replace(budget, **fields)
    except ValueError as error:
        return f"has a fault: {error}"
    return None
