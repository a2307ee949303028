"""Captions that a user brings to measure what stays: COCO's annotations, or any file of prompts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..errors import DuoError
from ..records import Prompt
from ..storage.files import printable, read_object
from .prompt_files import LONGEST, is_whole, read_prompts

CAPTIONS: Final = "captions"
"""The name of the prompt set that captions make."""
_HINT: Final = "the file of the name captions_*.json in COCO's annotations, as it was published"


class CocoCaptions(NamedTuple):
    """COCO's captions (Lin et al. 2014): one an image. year: as the file says; None where it says none."""

    year: int | None
    texts: list[str]


def read_captions(path: Path) -> list[Prompt]:
    """The captions of a file: .json is COCO's; other files are read as `read_prompts` reads them. DuoError: none."""
    if path.suffix.lower() != ".json":
        return read_prompts(path)
    return [Prompt(text, {}) for text in read_coco(path).texts]


def read_coco(path: Path) -> CocoCaptions:
    """One caption of each image of COCO's file: that with the lowest id. DuoError: it is of another form.

    The images are in an order drawn once for all files, so that the first n are a fair sample.
    """
    content = read_object(path, _HINT)
    firsts: dict[int, tuple[int, str]] = {}
    try:
        for entry in content["annotations"]:
            image, number, text = int(entry["image_id"]), int(entry["id"]), " ".join(entry["caption"].split())
            fits = bool(text) and len(text) <= LONGEST and is_whole(text)
            if fits and (image not in firsts or number < firsts[image][0]):
                firsts[image] = number, text
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        got = f"annotations without {error}" if isinstance(error, KeyError) else str(error)[:120]
        raise DuoError(f"{printable(path)} holds no captions of COCO's form", got=got, hint=_HINT) from error
    if not firsts:
        raise DuoError(f"{printable(path)} holds no caption", hint=_HINT)
    images = sorted(firsts)
    random.Random(0).shuffle(images)
    return CocoCaptions(_year(content), [firsts[image][1] for image in images])


def _year(content: dict[str, Any]) -> int | None:
    about = content.get("info")
    year = about.get("year") if isinstance(about, dict) else None
    return int(year) if isinstance(year, int) or (isinstance(year, str) and year.isdecimal()) else None
