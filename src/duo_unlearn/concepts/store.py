"""Finding and reading concept files: every fault of one is found before a model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import ValidationError

from ..errors import DuoError
from ..records import CONTROL, control_on
from ..storage.files import printable
from ..storage.forms import faults, read_yaml
from .captions import CAPTIONS
from .joint import join
from .prompt_sets import base_of, placeholders
from .spec import Concept, PairKind, Templates

SHIPPED: Final = Path(__file__).parent


def shipped_concepts() -> list[str]:
    """Names of the concept files in the package, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def concept_path(name: str) -> Path:
    """The file of a shipped concept, by its name, or of a path to a concept file. Any other name is a DuoError."""
    if name in shipped_concepts():
        return SHIPPED / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    raise DuoError(
        "unknown concept", got=repr(name[:100]), hint=f"one of {', '.join(shipped_concepts())}, or a .yaml file"
    )


def load_concept(name: str) -> Concept:
    """A concept by name or file, or several joined: "sword+balloon". `Session`, `duo check` and `duo concepts` call it.

    DuoError: the file is missing or no YAML, has faults (all are in one error), names two prompt sets alike, or uses a
    placeholder that it does not define; or the concepts cannot be joined.
    """
    parts = name.split("+")
    if len(parts) == 1 or Path(name).exists():
        return _read(concept_path(name))
    return join([_read(concept_path(part.strip())) for part in parts])


def _read(path: Path) -> Concept:
    try:
        concept = Concept.model_validate(read_yaml(path, "concept file"))
    except ValidationError as error:
        known = [*Concept.model_fields, *PairKind.model_fields, *Templates.model_fields]
        hint = "correct the file; `duo concepts show sword` prints one as an example"
        raise DuoError(
            f"the concept file {printable(path)} has faults", got="; ".join(faults(error, known)), hint=hint
        ) from error
    _check_templates(concept, path)
    _check_sets(concept, path)
    _check_split(concept, path)
    _check_judges(concept, path)
    return concept


def _check_templates(concept: Concept, path: Path) -> None:
    """Every placeholder is defined, and those that say one choice in several words have a choice in common."""
    together = [{kind.unsafe, kind.safe} for kind in concept.pairs] + [{template} for template in _templates(concept)]
    for templates in together:
        used = {name: template for template in sorted(templates) for name in placeholders(template)}
        if unknown := sorted(set(used) - set(concept.fill)):
            raise DuoError(
                f"the concept file {path} uses a placeholder that `fill` does not define",
                got=f"{{{unknown[0]}}} in {used[unknown[0]]!r}",
                hint="add it under fill:",
            )
        for base in {base_of(concept, name) for name in used}:
            names = sorted(name for name in used if base_of(concept, name) == base)
            if not set.intersection(*(set(concept.fill[name]) for name in names)):
                raise DuoError(
                    f"the concept file {path} has placeholders of one choice that share no label",
                    got=", ".join(names),
                    hint=f"{names[-1]} says what {base} says in other words: give it {base}'s labels under fill:",
                )


def _check_judges(concept: Concept, path: Path) -> None:
    """Detector and judges are told apart by their names."""
    names = [spec.name for spec in (concept.detector, *concept.judges)]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        hint = "name another detector under judges:"
        raise DuoError(f"the concept file {path} names a detector twice", got=repeated[0], hint=hint)


def _check_sets(concept: Concept, path: Path) -> None:
    """Every prompt set needs a name of its own: its images lie in a folder of that name."""
    controls = [CONTROL, *map(control_on, concept.attributes)]
    taken = ["keep", "plain", *controls, CAPTIONS, *concept.attacks, *concept.neighbours]
    if repeated := sorted({name for name in taken if taken.count(name) > 1}):
        raise DuoError(f"the concept file {path} has two prompt sets of one name", got=repeated[0], hint="rename one")


def _check_split(concept: Concept, path: Path) -> None:
    """`split: mini` is for concepts of the mini world, whose scenes it must be able to tell."""
    if concept.split != "mini":
        return
    from ..mini.world.scenes import COLOURS, OBJECTS, PLACES, SUBJECTS

    known = {"subject": (*SUBJECTS, *OBJECTS), "colour": tuple(COLOURS), "place": PLACES}
    for name, labels in known.items():
        values = [v for key, given in concept.fill.items() if base_of(concept, key) == name for v in given]
        if unknown := [value for value in values if value not in labels] or ([] if values else ["nothing"]):
            hint = "leave `split: mini` out: it is for the embedded mini model only"
            raise DuoError(f"the concept file {path}: fill.{name} is not the mini world's", got=unknown[0], hint=hint)


def _templates(concept: Concept) -> list[str]:
    near = [chosen for group in concept.neighbours.values() for chosen in group]
    plain = [concept.plain] if concept.plain is not None else []
    sets = [*concept.attacks.values(), *plain, *concept.keep, *near]
    return [t for kind in concept.pairs for t in (kind.unsafe, kind.safe)] + [t for s in sets for t in s.templates]
