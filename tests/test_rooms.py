"""Facts of a family stay in their rooms: no other room names a family, so that a new one is a file and a line."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import duo_unlearn
from duo_unlearn.families.registry import FAMILIES

PACKAGE = Path(duo_unlearn.__file__).parent
ROOMS = {"families", "concepts", "mini"}
"""Where families may be named: their facts, concepts' settings for them, and the mini model itself."""
ALLOWED = {
    "settings/tree.py": {"mini": 1},  # the default model
    "cli/main.py": {"mini": 1},  # the command `duo mini`
    "erasers/duo/paper.py": {"sd1": 1, "sd3": 1},  # the numbers of the authors' scripts
}
"""How often a file outside these rooms may name a family, and why."""


def names_in(path: Path) -> Counter[str]:
    """The names of families among the string constants of a file, docstrings aside."""
    known, tree = set(FAMILIES.names()), ast.parse(path.read_text(encoding="utf-8"))
    return Counter(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in known
    )


def files() -> list[str]:
    paths = [path.relative_to(PACKAGE) for path in sorted(PACKAGE.rglob("*.py"))]
    return [path.as_posix() for path in paths if path.parts[0] not in ROOMS]


@pytest.mark.parametrize("file", files())
def test_no_family_is_named_outside_its_rooms(file: str) -> None:
    assert names_in(PACKAGE / file) == Counter(ALLOWED.get(file, {}))
