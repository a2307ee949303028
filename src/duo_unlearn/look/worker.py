"""The process that samples for comparisons: `python -m duo_unlearn.look.worker RUN`, a JSON object a line.

In: a job. Out: {"phase": …} while it works, then {"pictures": [PNG in base64, or null]} or {"error": [three lines]}.
It holds the model from one job to the next, and ends with its input.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import DuoError

if TYPE_CHECKING:
    from PIL import Image

    from ..session import Session


def main(folder: Path) -> None:
    """Answer the jobs that come in, until there are no more."""
    # What libraries print must not stand between the answers.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    session: Session | None = None
    for line in sys.stdin:
        try:
            from ..arena.samples import compared, session_of

            session = session or session_of(folder)
            made = compared(session, **json.loads(line), say=lambda phase: _send(out, {"phase": phase}))
            _send(out, {"pictures": [_png(image) for image in made]})
        except DuoError as error:
            session = None
            _send(out, {"error": [error.problem, error.got, error.hint]})
        except Exception as error:  # noqa: BLE001 - whatever it is, the page tells it
            session = None
            got = f"{type(error).__name__}: {error}"[:300]
            _send(out, {"error": ["the comparison failed", got, "smaller settings, or another system"]})


def _send(out: TextIO, answer: dict[str, Any]) -> None:
    out.write(json.dumps(answer) + "\n")
    out.flush()


def _png(image: Image.Image | None) -> str | None:
    if image is None:
        return None
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
