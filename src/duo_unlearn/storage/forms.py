"""What users write by hand: YAML files, read with every limit checked, and the faults of a form in words."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from ..errors import DuoError, several
from .files import printable, read_bytes

MOST_BYTES: Final = 1_000_000
"""How large a YAML file may be."""
MOST_NODES: Final = 200_000
"""How many values a YAML file may hold with its aliases written out; a few lines of them can stand for billions."""
MOST_DEPTH: Final = 100
"""How deeply values may be nested: libyaml composes a nest by recursion in C, which no Python limit stops."""
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, a dozen times as fast, where PyYAML was built with it."""
_FORM = TypeVar("_FORM", bound=BaseModel)
LATER: Final = "later"
"""Marks an option that came later, in its annotation: `Annotated[int, LATER]` (`deciding`)."""
ASIDE: Final = "aside"
"""Marks an option that decides nothing of one training by itself, in the same way."""
_MISTAKES: Final = (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises: tags such as !!int on other words make its constructors fail in their own ways."""


class Strict(BaseModel):
    """Settings: an unknown key is a fault, and so are a number that is not finite and a truth value as a number."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_as_number(cls, value: Any, field: ValidationInfo) -> Any:
        """YAML reads `yes`, `on` and `true` as a truth value, which would pass as the number 1."""
        annotation = cls.model_fields[field.field_name or ""].annotation
        if value is False and "no" in get_args(annotation):
            return "no"  # the word, as YAML reads it
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError("input should not be a truth value")
        return value


class Frozen(Strict):
    """A form that nobody changes once it is read."""

    model_config = ConfigDict(frozen=True)


def deciding(options: Strict) -> dict[str, Any]:
    """Options as the key of what they decide has them: one that came later only where it is not its default.

    So what was made before there was such an option is known again. Those that are aside are left out. A group of
    options is treated alike.
    """
    written, deciding_ones = options.model_dump(mode="json"), {}
    for name, field in type(options).model_fields.items():
        value = getattr(options, name)
        if ASIDE in field.metadata or (LATER in field.metadata and value == field.default):
            continue
        deciding_ones[name] = deciding(value) if isinstance(value, Strict) else written[name]
    return deciding_ones


def read_form(form: type[_FORM], content: Mapping[str, Any], path: Path, hint: str) -> _FORM:
    """What a file holds, as its form. hint: what to do where that has faults, which is a DuoError."""
    try:
        return form.model_validate(content)
    except ValidationError as error:
        got = several(faults(error, form.model_fields))
        raise DuoError(f"{printable(path)} has faults", got=got, hint=hint) from error


class _Aliases(yaml.YAMLError):
    """Aliases that stand for too much, or for themselves."""


class _Depth(yaml.YAMLError):
    """A nest of more than MOST_DEPTH values."""


def read_yaml(path: Path, what: str, hint: str | None = None) -> dict[str, Any]:
    """Read a YAML file that must hold a mapping with names as keys. what: e.g. "settings file"; hint: what to do.

    DuoError: the file is missing, no regular file, larger than a megabyte, no UTF-8, no YAML, or no mapping; or a key
    stands twice in it.
    """
    try:
        text = read_bytes(path, what, MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        again = hint or "save it as UTF-8"
        raise DuoError(f"cannot read the {what} {printable(path)}", got=str(error)[:200], hint=again) from error
    content = parse_yaml(text, f"the {what} {printable(path)}", hint)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        problem = f"the {what} {printable(path)} must be a mapping of names to values"
        raise DuoError(problem, got=type(content).__name__, hint=hint)
    return content


def parse_yaml(text: str, what: str, hint: str | None = None) -> Any:
    """The value of a YAML text. what: names the text in the DuoError that anything but valid YAML gives."""
    try:
        _check_depth(text)
        loader = _LOADER(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _size(node, {})
        return loader.construct_document(node)
    except _MISTAKES as error:
        got, again = _mistake(error)
        raise DuoError(f"{what} is not valid YAML", got=got[:300], hint=hint or again) from error


def _mistake(error: Exception) -> tuple[str, str]:
    """What is wrong in a YAML text, and what to do about it."""
    if isinstance(error, (RecursionError, _Depth)):
        return "it is nested too deeply", "write it with fewer levels"
    if not isinstance(error, yaml.MarkedYAMLError) or (mark := error.problem_mark) is None:
        return str(error) or type(error).__name__, "mend it, or quote what is a text"
    words = ", ".join(filter(None, (error.context, error.problem)))
    begun = (error.context_mark or mark).line + 1  # a bracket that is never closed is missed at the end alone
    told = f"{words} (line {mark.line + 1}, column {mark.column + 1})"
    return told, f"mend it from line {begun} on, or quote what is a text"


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, _LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MOST_DEPTH:
            raise _Depth


def _size(node: yaml.Node, sizes: dict[int, int]) -> int:
    """How many values a node stands for with its aliases written out."""
    if id(node) in sizes:
        if sizes[id(node)] == 0:
            raise _Aliases("an alias stands for itself")
        return sizes[id(node)]
    sizes[id(node)] = 0
    parts: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        parts = node.value
    elif isinstance(node, yaml.MappingNode):
        _check_keys(node)
        parts = [part for pair in node.value for part in pair]
    total = 1 + sum(_size(part, sizes) for part in parts)
    if total > MOST_NODES:
        raise _Aliases(f"its aliases stand for more than {MOST_NODES} values")
    sizes[id(node)] = total
    return total


def _check_keys(node: yaml.MappingNode) -> None:
    """Fail for a key that stands twice: PyYAML keeps what is under the last one, and says nothing of the first."""
    known: dict[tuple[str, str], yaml.Node] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
            continue
        if (first := known.setdefault((key.tag, key.value), key)) is not key:
            problem = f"the key {key.value[:80]!r} stands twice"
            raise yaml.MarkedYAMLError(None, first.start_mark, problem, key.start_mark)


def faults(error: ValidationError, names: Iterable[str]) -> list[str]:
    """One phrase a fault of a form. names: the keys that there are; the nearest one is suggested for an unknown key."""
    phrases = []
    for entry in error.errors():
        key = ".".join(str(part) for part in entry["loc"])
        if entry["type"] == "extra_forbidden":
            near = _nearest(key, list(names))
            phrases.append(f"unknown key {key!r}" + (f" (did you mean {near!r}?)" if near else ""))
        elif entry["type"] == "missing":
            phrases.append(f"{key}: missing")
        else:
            message = entry["msg"].lower().removeprefix("value error, ")
            # What is wrong with a form as a whole says by itself what it is about.
            phrases.append(f"{key}: {message}, got {_value(entry['input'])}" if key else message)
    return phrases


def _nearest(key: str, names: list[str]) -> str | None:
    last = key.rsplit(".", 1)[-1]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    near = near or difflib.get_close_matches(last, [name.rsplit(".", 1)[-1] for name in names], n=1, cutoff=0.6)
    return near[0] if near else None


def _value(value: object) -> str:
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or a deep nest
        return f"a value that is too large to print ({type(value).__name__})"
    return text if len(text) <= 120 else f"{text[:120]}…"
