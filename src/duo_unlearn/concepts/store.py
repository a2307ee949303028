"""Finding and reading concept files, and turning their templates into prompts."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from ..errors import DuoError
from ..records import Prompt
from ..settings.tree import faults, read_yaml
from .spec import Concept, PairKind, PromptSet

SHIPPED = Path(__file__).parent
MOST_DRAWS = 2000
"""Draws without a new prompt, after which a set counts as used up."""
Accept = Callable[[Mapping[str, str]], bool]


def shipped_concepts() -> list[str]:
    """Names of the concept files in the package, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def concept_path(name: str) -> Path:
    """The file of a shipped concept's name, or of a path to a concept file."""
    shipped = SHIPPED / f"{name}.yaml"
    if re.fullmatch(r"[a-z0-9-]+", name) and shipped.exists():
        return shipped
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    raise DuoError("unknown concept", got=name, hint=f"one of {', '.join(shipped_concepts())}, or a .yaml file")


def load_concept(name: str) -> Concept:
    """A concept by name or file; every fault of a file is in one error."""
    path = concept_path(name)
    try:
        concept = Concept.model_validate(read_yaml(path, "concept file"))
    except ValidationError as error:
        known = [*Concept.model_fields, *PairKind.model_fields, *PromptSet.model_fields]
        raise DuoError(f"the concept file {path} has faults", got="; ".join(faults(error, known))) from error
    for template in _templates(concept):
        unknown = sorted(_placeholders(template) - set(concept.fill))
        if unknown:
            raise DuoError(
                f"the concept file {path} uses a placeholder that `fill` does not define",
                got=f"{{{unknown[0]}}} in {template!r}",
                hint="add it under fill:",
            )
    _check_sets(concept, path)
    _check_split(concept, path)
    return concept


def _check_sets(concept: Concept, path: Path) -> None:
    """Every prompt set needs a name of its own: its images lie in a folder of that name."""
    taken = ["keep", "inverted", "inverted-plain", *concept.attacks, *concept.neighbours]
    if repeated := sorted({name for name in taken if taken.count(name) > 1}):
        raise DuoError(f"the concept file {path} has two prompt sets of one name", got=repeated[0], hint="rename one")


def _check_split(concept: Concept, path: Path) -> None:
    """`split: mini` is for concepts of the mini world, whose scenes it must be able to tell."""
    if concept.split != "mini":
        return
    from ..mini.world.scenes import COLOURS, OBJECTS, PLACES, SUBJECTS

    known = {"subject": (*SUBJECTS, *OBJECTS), "colour": tuple(COLOURS), "place": PLACES}
    for name, labels in known.items():
        values = list(concept.fill.get(name, []))
        if unknown := [value for value in values if value not in labels] or ([] if values else ["nothing"]):
            hint = "leave `split: mini` out: it is for the embedded mini model only"
            raise DuoError(f"the concept file {path}: fill.{name} is not the mini world's", got=unknown[0], hint=hint)


def _templates(concept: Concept) -> list[str]:
    near = [chosen for group in concept.neighbours.values() for chosen in group]
    plain = [concept.plain] if concept.plain is not None else []
    sets = [*concept.attacks.values(), *plain, *concept.keep, *near]
    return [t for kind in concept.pairs for t in (kind.unsafe, kind.safe)] + [t for s in sets for t in s.templates]


def _placeholders(template: str) -> set[str]:
    try:
        return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise DuoError("a prompt template has unbalanced braces", got=template) from error


def fill_template(template: str, words: Mapping[str, str]) -> str:
    """A template with its placeholders filled and 'a' turned into 'an' before a vowel."""
    return re.sub(r"\b([aA])(?= [aeiou])", r"\1n", template.format_map(dict(words)))


def choose_fill(concept: Concept, rng: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    """Random words for every placeholder, and the labels they stand for."""
    words, labels = {}, {}
    for name, values in concept.fill.items():
        label = rng.choice(list(values))
        labels[name] = label
        words[name] = rng.choice(values[label]) if isinstance(values, dict) else label
    return words, labels


def prompts_of(concept: Concept, sets: list[PromptSet], count: int, seed: str, accept: Accept) -> list[Prompt]:
    """`count` prompts drawn from prompt sets in turn: distinct while the templates last, then repeated.

    A set that has no new prompt left drops out, and the others go on. accept decides by what a prompt shows (labels of
    its placeholders and of its set) whether it may be used.
    """
    rng = random.Random(seed)
    found: dict[str, Prompt] = {}
    open_sets, turn = list(sets), 0
    while len(found) < count and open_sets:
        chosen = open_sets[turn % len(open_sets)]
        prompt = _new_prompt(concept, chosen, rng, accept, found)
        if prompt is None:
            open_sets.remove(chosen)
        else:
            found[prompt.text] = prompt
            turn += 1
    if not found:
        raise DuoError("a prompt set gives no prompt", got=f"{sets[0].templates[0]!r} and {len(sets) - 1} more sets")
    prompts = list(found.values())
    return [prompts[i % len(prompts)] for i in range(count)]


def _new_prompt(
    concept: Concept, chosen: PromptSet, rng: random.Random, accept: Accept, known: Mapping[str, Prompt]
) -> Prompt | None:
    """A prompt of a set that is not known yet; None if many draws in a row give none."""
    for _ in range(MOST_DRAWS):
        template = rng.choice(chosen.templates)
        words, labels = choose_fill(concept, rng)
        used = _placeholders(template)
        shows = {name: label for name, label in labels.items() if name in used} | chosen.shows
        text = fill_template(template, words)
        if text not in known and accept(labels | chosen.shows):
            return Prompt(text, shows)
    return None


def splitter(concept: Concept, *, held_out: bool) -> Accept:
    """Which combinations may be used: those held out from the mini world's training, the others, or all."""
    if concept.split == "none":
        return lambda _labels: True
    from ..mini.world.scenes import Scene, is_held_out

    def accept(labels: Mapping[str, str]) -> bool:
        scene = Scene(labels["subject"], labels["colour"], labels.get("item", "none"), labels["place"])
        return is_held_out(scene) == held_out

    return accept
