"""What a page that is given away leaves out: whatever tells of the machine."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

from .read import Contents

_FOLDERS: Final = re.compile(r"(?<![^\s(\"'])(?:~|[A-Za-z]:)?[/\\](?:\S*[/\\])?")
"""The folders of a path in a text, before its last name."""
_MODEL: Final = re.compile(r"(?<=\bmodel=)[^|]+?(?=\||>=|, |$)")
"""What a detector's label says of where its model lies, in a contract or in a list of labels."""
_JOINED: Final = re.compile(r"(\+|, )(?=(?:[A-Za-z]:)?[/\\.~])")
"""Where a path begins behind others, as in the concept "sword+/home/me/umbrella.yaml"."""


def to_share(contents: Contents) -> Contents:
    """The same without what tells of the machine: folders before file names, and the words of exceptions."""
    return contents._replace(
        concept=contents.concept and _file_name(contents.concept),
        model=contents.model and _file_name(contents.model),
        systems=[s._replace(asked=tuple((guard, without_folder(c)) for guard, c in s.asked)) for s in contents.systems],
        estimates=[dataclasses.replace(e, contract=without_folder(e.contract)) for e in contents.estimates],
        absent=[a._replace(reason=_reason(a.reason)) for a in contents.absent],
        contract=contents.contract and without_folder(contents.contract),
        groups=[g._replace(contract=g.contract and without_folder(g.contract)) for g in contents.groups],
        settings=[s._replace(value=_file_name(without_folder(s.value))) for s in contents.settings],
        record=_without_folders(contents.record),
        labels=_without_folders(contents.labels),
    )


def without_folder(contract: str) -> str:
    """A contract, or labels, without the folders before the name of a detector's own model. A hub id stays."""
    return _MODEL.sub(lambda found: _file_name(found[0]), contract)


def _reason(text: str) -> str:
    return _FOLDERS.sub("", without_folder(text).partition(": ")[0])


def _file_name(text: str) -> str:
    """A text without the folders of the paths that it begins with or joins."""
    return "".join(part if i % 2 else _last_name(part) for i, part in enumerate(_JOINED.split(text)))


def _last_name(text: str) -> str:
    is_path = re.match(r"([A-Za-z]:)?[/\\.~]", text)
    return re.split(r"[/\\]", text.rstrip("/\\"))[-1] if is_path else text


def _without_folders(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_folders(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_without_folders(entry) for entry in value]
    return _file_name(without_folder(value)) if isinstance(value, str) else value
