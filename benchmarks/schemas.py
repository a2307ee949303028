"""The JSON Schemas in docs/, from the forms of the files that they describe. Tests compare them.

python benchmarks/schemas.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from duo_unlearn.export import statement
from duo_unlearn.reproduction import results

DOCS: Final = Path(__file__).parents[1] / "docs"
SCHEMAS: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "erasure-v1.schema.json": statement.schema,
    "reproduction-v1.schema.json": results.schema,
}


def text(name: str) -> str:
    """A schema as its file has it."""
    return json.dumps(SCHEMAS[name](), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for name in SCHEMAS:
        (DOCS / name).write_text(text(name), encoding="utf-8")
