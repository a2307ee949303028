"""Names of files as records hold them: relative to the record's folder, with slashes on every system."""

from __future__ import annotations

from pathlib import PurePath


def leads_out(file: str, kind: type[PurePath] = PurePath) -> bool:
    """Whether a name may lead out of its folder, by its words alone: the disk is not asked. kind: of this system.

    On Windows also a drive does (C:file), and a backslash divides folders.
    """
    path = kind(file)
    return bool(path.anchor) or ".." in path.parts
