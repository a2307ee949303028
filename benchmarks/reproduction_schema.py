"""docs/reproduction-v1.schema.json from the form of a results file. `tests/reproduction/test_results.py` compares them.

python benchmarks/reproduction_schema.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from duo_unlearn.reproduction.results import schema

PAGE: Final = Path(__file__).parents[1] / "docs" / "reproduction-v1.schema.json"

if __name__ == "__main__":
    PAGE.write_text(json.dumps(schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
