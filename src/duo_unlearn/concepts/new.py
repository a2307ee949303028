"""A concept file from one sentence: valid as it is, and commented for the changes that it needs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from ..errors import DuoError
from ..storage.files import write_text

PAIRS: Final = 64
PLACES: Final = ("in a room", "in a street", "in a park", "in front of a wall")
INSTEAD: Final = ("a person", "an ordinary thing")
"""What is drawn in place of the concept where nobody says."""
_NO_SETTINGS: Final = """# Settings for a family where the defaults, the authors' for nudity on SD1.4, are not enough:
# recommended:
#   sdxl: {source: "a sweep of mine", settings: {train: {beta: 250}}}
"""


class Ground(NamedTuple):
    """What a model brings to a concept file: detectors, each {name, labels}, that can see the concept in its pictures.

    judges: those that only score. places: words for {place} that it knows. recommended: family → {source, settings}.
    """

    detector: Mapping[str, Any]
    judges: Sequence[Mapping[str, Any]] = ()
    places: Sequence[str] = PLACES
    recommended: Mapping[str, Any] = {}


def new_concept(path: Path, sentence: str, safe: Sequence[str] = (), ground: Ground | None = None) -> None:
    """Write a concept file. sentence: what to erase, e.g. "a person with an umbrella"; safe: what to draw in its place.

    ground: of the model that is meant; None: CLIP judges, and nothing is recommended. A file that is there already is
    left alone: DuoError.
    """
    said, instead = words_of(sentence, safe)
    if path.exists():
        raise DuoError(f"{path} is there already", hint="choose another -o, or delete it")
    if path.suffix not in (".yaml", ".yml"):
        raise DuoError("a concept file is YAML", got=str(path), hint=f"-o {path.with_suffix('.yaml')}")
    write_text(path, _content(said, instead, ground or Ground(clip_detector(said, instead))))


def words_of(sentence: str, safe: Sequence[str] = ()) -> tuple[str, list[str]]:
    """What to erase and what to draw in its place, as a file says them. DuoError: a text has no words."""
    return _plain(sentence), [_plain(text) for text in safe] or list(INSTEAD)


def clip_detector(said: str, safe: Sequence[str]) -> dict[str, Any]:
    """CLIP, asked whether a picture is nearer to what is said than to what is drawn in its place."""
    return {"name": "clip", "labels": [f"unsafe=a picture of {said}", *(f"safe=a picture of {text}" for text in safe)]}


def _plain(text: str) -> str:
    words = " ".join(text.split()).strip(" .")
    if not words or set(words) & set("{}"):
        raise DuoError("a concept needs words", got=repr(text), hint='duo concepts new "a person with an umbrella"')
    return words


def _content(said: str, safe: list[str], ground: Ground) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", said.lower()).strip("-")[:40].rstrip("-") or "concept"
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
detector: {_on_a_line(ground.detector)}
{_judges(ground.judges)}# Whether a report blurs the images until they are asked for.
sensitive: true
# Words for {{placeholders}}. Vary everything that is not the concept: people, places, light.
fill:
  place: {json.dumps(list(ground.places))}
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
{_recommended(ground.recommended)}"""


def _on_a_line(detector: Mapping[str, Any]) -> str:
    return f"{{name: {detector['name']}, labels: {json.dumps(list(detector['labels']), ensure_ascii=False)}}}"


def _judges(judges: Sequence[Mapping[str, Any]]) -> str:
    if not judges:
        return ""
    comment = "# Searches ask the detector, so another judge scores, and heads every table."
    return f"{comment}\njudges: [{', '.join(map(_on_a_line, judges))}]\n"


def _recommended(recommended: Mapping[str, Any]) -> str:
    if not recommended:
        return _NO_SETTINGS
    block = yaml.safe_dump({"recommended": dict(recommended)}, sort_keys=False, allow_unicode=True, width=110)
    return f"# Settings for the family that this was written for.\n{block}"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
