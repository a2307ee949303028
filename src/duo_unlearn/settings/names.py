"""Names and paths in settings: what no file system takes is refused where it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import AfterValidator, Field

LONGEST_NAME: Final = 255
"""How many bytes a file's name may have on common file systems."""
LONGEST_PATH: Final = 3900
"""How many bytes a run folder's path may have, so that the files in it stay within the 4096 of Linux."""
_P = TypeVar("_P", str, Path)


def _check_name(value: _P) -> _P:
    text = str(value)
    if "\0" in text:
        raise ValueError("a name cannot have a NUL character")
    if any("\ud800" <= letter <= "\udfff" for letter in text):  # YAML would not read it back
        raise ValueError("a name must be UTF-8")
    if len(text.encode(errors="surrogateescape")) > LONGEST_PATH:
        raise ValueError(f"a path can have {LONGEST_PATH} bytes at most")
    if any(len(part.encode(errors="surrogateescape")) > LONGEST_NAME for part in Path(text).parts):
        raise ValueError(f"a name can have {LONGEST_NAME} bytes at most")
    return value


def _distinct(names: list[str]) -> list[str]:
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"{repeated[0]} is named twice")
    return names


PathName = Annotated[Path, AfterValidator(_check_name)]
Name = Annotated[str, Field(min_length=1), AfterValidator(_check_name)]
Names = Annotated[list[Name], AfterValidator(_distinct)]
