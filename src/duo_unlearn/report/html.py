"""What renders pages from templates, so that no text can become markup."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jinja2


def environment_of(package: str, folder: str, filters: Mapping[str, Callable[..., Any]]) -> jinja2.Environment:
    """The environment of a package's templates: every text is escaped, and a name that is not given is an error."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader(package, folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= dict(filters)
    return made
