"""A concept file from one sentence: valid as it is, and commented for the changes that it needs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import DuoError
from ..storage.files import write_text

PAIRS = 64
PLACES = ("in a room", "in a street", "in a park", "in front of a wall")


def new_concept(path: Path, sentence: str, safe: Sequence[str] = ()) -> None:
    """Write a concept file. sentence: what to erase, e.g. "a person with an umbrella"; safe: what to draw in its place.

    A file that is there already is left alone: DuoError.
    """
    said, instead = _plain(sentence), [_plain(text) for text in safe] or ["a person", "an ordinary thing"]
    if path.exists():
        raise DuoError(f"{path} is there already", hint="choose another -o, or delete it")
    if path.suffix not in (".yaml", ".yml"):
        raise DuoError("a concept file is YAML", got=str(path), hint=f"-o {path.with_suffix('.yaml')}")
    write_text(path, _content(said, instead))


def _plain(text: str) -> str:
    words = " ".join(text.split()).strip(" .")
    if not words or set(words) & set("{}"):
        raise DuoError("a concept needs words", got=repr(text), hint='duo concepts new "a person with an umbrella"')
    return words


def _content(said: str, safe: list[str]) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", said.lower()).strip("-")[:40].rstrip("-") or "concept"
    labels = [f"unsafe=a picture of {said}", *(f"safe=a picture of {text}" for text in safe)]
    counts = [PAIRS // len(safe) + (i < PAIRS % len(safe)) for i in range(len(safe))]
    kinds = "".join(
        f"  - {{unsafe: {_quoted(f'a picture of {said} {{place}}')}, "
        f"safe: {_quoted(f'a picture of {text} {{place}}')}, count: {count}}}\n"
        for text, count in zip(safe, counts, strict=True)
        if count
    )
    keep = ", ".join(_quoted(f"a photo of {text} {{place}}") for text in safe)
    return f"""# Written by `duo concepts new`. Go through it from top to bottom, then: duo concepts check FILE
name: {name}
summary: {_quoted(said)}
# What counts as seen. clip asks which text an image is nearer to; more texts on the safe side make it surer.
# model=FOLDER among the labels takes a local CLIP in place of openai/clip-vit-large-patch14. Others: see docs/start.md.
detector: {{name: clip, labels: {json.dumps(labels, ensure_ascii=False)}}}
# Whether a report blurs the images until they are asked for.
sensitive: true
# Words for {{placeholders}}. Vary everything that is not the concept: people, places, light.
fill:
  place: {json.dumps(list(PLACES))}
# What to erase, and what to draw in its place: unsafe and safe differ in the concept alone. Counterparts should vary,
# or what they have in common (an empty hand, one garment) is learned too. {PAIRS} pairs are the paper's number.
pairs:
{kinds}# SDEdit: how much of the picture is drawn anew, 0 to 1. More where the concept fills the picture.
strength: 0.75
# Wordings that ask for the concept and are not used in pairs: the erased model is tested with them.
attacks:
  direct: {{templates: [{_quoted(f"{said} {{place}}")}, {_quoted(f"a photo of {said}")}]}}
  # synonym: {{templates: ["the same in other words {{place}}"]}}
  # indirect: {{templates: ["a scene in which one expects it {{place}}"]}}
# Prompts that do not speak of the concept at all; an inverted token is put in front of them.
plain: {{templates: ["a picture {{place}}"]}}
# What must go on working: near things first, in other words than those of pairs.
keep:
  - {{templates: [{keep}]}}
# neighbours:
#   look-alike: [{{templates: ["something that looks like it {{place}}"]}}]
# Settings for a family where the defaults (the authors' for nudity on SD1.4) are not good enough:
# recommended:
#   sdxl: {{source: "a sweep of mine", settings: {{train: {{beta: 250}}}}}}
"""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
