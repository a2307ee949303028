"""Text between the markers of a page of docs/, which a benchmark writes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from duo_unlearn.storage.files import write_text

END: Final = "<!-- end of figures -->"


def fill(page: Path, begin: str, text: str) -> None:
    """Put text between the marker `begin` of a page and END."""
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    write_text(page, f"{before}{begin}\n\n{text}\n{END}{rest.partition(END)[2]}")
