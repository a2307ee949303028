"""docs/erasure-v1.schema.json from the form of the statement. `tests/export/test_statement.py` compares the two.

python benchmarks/statement_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from duo_unlearn.export.statement import schema

PAGE: Final = Path(__file__).parents[1] / "docs" / "erasure-v1.schema.json"


def text() -> str:
    """The schema as the file has it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")
