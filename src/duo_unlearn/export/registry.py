"""The export formats that there are. One that joins adds a file and its line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..registry import Registry

if TYPE_CHECKING:
    from .interface import Format

FORMATS: Final[Registry[Format]] = Registry(
    "export format",
    {
        "diffusers": "export.diffusers:DIFFUSERS",
        "kohya": "export.kohya:KOHYA",
        "merged": "export.merged:MERGED",
        "checkpoint": "export.single_file:CHECKPOINT",
    },
)
