"""What a page that is given away leaves out: whatever tells of the machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from .read import Contents

_FOLDERS: Final = re.compile(r"(?<![^\s(\"'])(?:~|[A-Za-z]:)?[/\\](?:\S*[/\\])?")
"""The folders of a path in a text, before its last name."""


def to_share(contents: Contents) -> Contents:
    """The same without what tells of the machine: folders before file names, and the words of exceptions."""
    return contents._replace(
        concept=contents.concept and _file_name(contents.concept),
        model=contents.model and _file_name(contents.model),
        absent=[a._replace(reason=_FOLDERS.sub("", a.reason.partition(": ")[0])) for a in contents.absent],
        settings=[s._replace(value=_file_name(s.value)) for s in contents.settings],
        record=_without_folders(contents.record),
    )


def _file_name(text: str) -> str:
    return re.split(r"[/\\]", text)[-1] if re.match(r"([A-Za-z]:)?[/\\.~]", text) else text


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return _file_name(value) if isinstance(value, str) else value
