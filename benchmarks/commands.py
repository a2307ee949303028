"""docs/commands.md from the command line's own help and the registries. `tests/test_docs.py` compares the two.

python benchmarks/commands.py               # writes docs/commands.md
"""

from __future__ import annotations

import dataclasses
import inspect
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Final, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.cli.main import app
from duo_unlearn.cli.options import FLAGS
from duo_unlearn.concepts.store import load_concept, shipped_concepts
from duo_unlearn.detectors.registry import DETECTORS
from duo_unlearn.edits.interface import KINDS
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.erasers.wraps import WRAPS
from duo_unlearn.export.registry import FORMATS
from duo_unlearn.families.registry import every_family
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.registry import Registry
from duo_unlearn.settings.tree import Settings

PAGE: Final = Path(__file__).parents[1] / "docs" / "commands.md"
WIDTH: Final = 100
INTRODUCTION: Final = """\
# Every command, option and setting

This page is generated: `python benchmarks/commands.py` writes it from the help of `duo` and from the settings tree.
Do not edit it by hand; a test fails when it is out of date.
The other pages say what the words mean: [start](start.md) for the first hour, [red-team](red-team.md) for attacks,
[run-folder](run-folder.md) for what lies on disk, [ship](ship.md) for exports, [statement](statement.md) for their
check.
"""
SHARED: Final = """\
`erase`, `pairs`, `train`, `evaluate` and `check` take the settings of a run.
A run folder keeps its settings, so a later command needs `-o RUN` alone.
Later layers win: the package's defaults, what the concept file recommends for the model's family, the run folder's
`settings.yaml`, the settings file, `--set KEY=VALUE`, and flags.
"""
SETTINGS: Final = """\
Each key works in a settings file and with `--set KEY=VALUE`.
The default is the package's own; the concept file may recommend another value for a model's family.
`duo check` prints the values as they resolve.
"""


class Option(NamedTuple):
    """An option or an argument of a command, as its help shows it."""

    names: tuple[str, ...]
    kind: str
    default: str
    text: str
    is_argument: bool


def page() -> str:
    """The whole page."""
    commands = list(_commands())
    shared = next(_run_options(info.callback) for _, info in commands if _takes_settings(info.callback))
    parts = [_paragraphs(INTRODUCTION), "## Commands\n", _overview(commands)]
    parts += ["## Options of a run\n", _paragraphs(SHARED), _option_table(shared)]
    parts += [_section(name, info) for name, info in commands]
    parts += ["## Settings\n", _paragraphs(SETTINGS), _settings_table(), *_registries()]
    return "\n".join(parts)


def every_command() -> dict[str, set[str]]:
    """The name of each command, e.g. "concepts new", and the names of its options."""
    return {name: {n for o in _options(info.callback) for n in _apart(o)} | {"--help"} for name, info in _commands()}


def _commands() -> Iterator[tuple[str, Any]]:
    """The name of each command and what Typer keeps of it; those of a group come last, after the group's name."""
    groups: list[tuple[str, Any]] = [("", app), *((f"{g.name} ", g.typer_instance) for g in app.registered_groups)]
    for prefix, group in groups:
        for info in group.registered_commands:
            yield prefix + (info.name or info.callback.__name__.replace("_", "-")), info


def _apart(option: Option) -> list[str]:
    """The names of an option; those of a switch and its opposite are written as one."""
    return [name for names in option.names for name in names.split("/")]


def _overview(commands: Iterable[tuple[str, Any]]) -> str:
    rows = [(f"[`duo {name}`](#duo-{name.replace(' ', '-')})", _help(info)[0]) for name, info in commands]
    return _table(("command", "what it does"), rows)


def _help(info: Any) -> list[str]:
    """The paragraphs of a command's help."""
    text = inspect.cleandoc(info.help or info.callback.__doc__ or "")
    return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


def _section(name: str, info: Any) -> str:
    """One command: its help, its examples as code, and its options but those that all runs share."""
    lines = [f"## duo {name}\n"]
    for is_code, paragraphs in _runs(_help(info)):
        if is_code:
            lines.append("\n".join(f"    {paragraph}" for paragraph in paragraphs) + "\n")
        else:
            lines += [f"{_wrapped(paragraph)}\n" for paragraph in paragraphs]
    options = list(_options(info.callback))
    if _takes_settings(info.callback):
        lines.append("It takes [the options of a run](#options-of-a-run).\n")
        shared = {option.names for option in _run_options(info.callback)}
        options = [option for option in options if option.names not in shared]
    if options:
        lines.append(_option_table(options))
    return "\n".join(lines)


def _runs(paragraphs: Iterable[str]) -> Iterator[tuple[bool, list[str]]]:
    """Examples and sentences, as they follow one another."""
    held: list[str] = []
    before = False
    for paragraph in paragraphs:
        is_code = paragraph.startswith(("duo ", "CUDA_VISIBLE_DEVICES"))
        if held and is_code != before:
            yield before, held
            held = []
        held.append(paragraph)
        before = is_code
    if held:
        yield before, held


def _takes_settings(callback: Callable[..., Any]) -> bool:
    return set(FLAGS) <= set(inspect.signature(callback).parameters)


def _run_options(callback: Callable[..., Any]) -> list[Option]:
    shared = ["config", "assign", *FLAGS]
    return [option for name, option in _named_options(callback) if name in shared]


def _options(callback: Callable[..., Any]) -> Iterator[Option]:
    return (option for _, option in _named_options(callback))


def _named_options(callback: Callable[..., Any]) -> Iterator[tuple[str, Option]]:
    for name, parameter in inspect.signature(callback, eval_str=True).parameters.items():
        kind, info = get_args(parameter.annotation)
        # Typer keeps the first name that `Option("--name")` was called with where a default would stand.
        names = tuple(str(n) for n in (info.default, *(info.param_decls or ())) if isinstance(n, str))
        is_argument = type(info).__name__ == "ArgumentInfo"
        if is_argument:
            names = (info.metavar or name.upper(),)
        names = names or (f"--{name.replace('_', '-')}",)
        yield name, Option(names, _kind(kind), _default(parameter.default), info.help or "", is_argument)


def _kind(annotation: Any) -> str:
    """What a value is, for people: of an optional type the type itself."""
    parts = [part for part in get_args(annotation) if part is not NoneType]
    if get_origin(annotation) is list:
        return f"{_kind(parts[0])}, repeatable"
    if parts:
        return _kind(parts[0])
    names = {str: "text", int: "whole number", float: "number", bool: "switch", Path: "path"}
    return names[annotation]


def _default(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "needed"
    return "" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _option_table(options: Sequence[Option]) -> str:
    rows = [(" ".join(f"`{name}`" for name in o.names), o.kind, o.default, o.text) for o in options]
    return _table(("option", "value", "default", "meaning"), rows)


def _settings_table() -> str:
    rows = [*_setting_rows(Settings, "")]
    registries: tuple[tuple[str, Registry[Any]], ...] = (("erasers", ERASERS), ("wraps", WRAPS), ("guards", GUARDS))
    for prefix, registry in registries:
        for name in registry.names():
            if (prefix, name) != ("erasers", "duo"):  # its options are `train.…`
                rows += _setting_rows(registry.get(name).settings, f"{prefix}.{name}.")
    return _table(("key", "default", "meaning"), rows)


def _setting_rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _setting_rows(kind, f"{prefix}{name}.")
        else:
            default = field.get_default(call_default_factory=True)
            yield f"`{prefix}{name}`", f"`{_yaml(default)}`", field.description or ""


def _yaml(value: Any) -> str:
    """A value as a settings file has it."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _registries() -> list[str]:
    """What there is to name: attacks, erasers, guards, detectors, formats, families and concepts."""
    attacks = [ATTACKS.get(name) for name in ATTACKS.names()]
    budgets = [
        (f"`{a.name}`", a.title, *(_budget(a.budgets[preset]) for preset in ("quick", "paper"))) for a in attacks
    ]
    erasers = [ERASERS.get(name) for name in ERASERS.names()]
    guards = [GUARDS.get(name) for name in GUARDS.names()]
    formats = [FORMATS.get(name) for name in FORMATS.names()]
    concepts = [load_concept(name) for name in shipped_concepts()]
    return [
        "## Attacks and their budgets\n",
        _table(("name", "attack", "quick", "paper"), budgets),
        "## Erasers\n",
        _table(
            ("name", "eraser", "reads of the pairs", "families"),
            [(f"`{e.name}`", e.title, e.reads, _families(e.why_not)) for e in erasers],
        ),
        "## Wraps of erasers\n",
        _table(("name", "wrap"), [(f"`{w.name}`", w.title) for w in map(WRAPS.get, WRAPS.names())]),
        "## Guards\n",
        _table(
            ("name", "guard", "acts on", "families"),
            [(f"`{g.name}`", g.title, f"the {g.acts_on}", _families(g.why_not)) for g in guards],
        ),
        "## Detectors\n",
        _table(("name", "example of labels", "families"), [_detector(name) for name in DETECTORS.names()]),
        "## Export formats\n",
        _table(
            ("name", "format", "takes", "models with a"),
            [
                (
                    f"`{f.name}`",
                    f.title,
                    ", ".join(KINDS[kind] for kind in KINDS if kind in f.takes),
                    " or ".join(f.denoisers),
                )
                for f in formats
            ],
        ),
        "## Model families\n",
        _table(("name", "family", "needs"), [(f"`{f.name}`", f.title, f.needs) for f in every_family()]),
        "## Concepts\n",
        _table(("name", "concept"), [(f"`{c.name}`", c.summary) for c in concepts]),
    ]


def _budget(budget: Any) -> str:
    values = {key: value for key, value in dataclasses.asdict(budget).items() if value is not None}
    return ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items()
    )


def _families(why_not: Callable[[Any], str | None]) -> str:
    return ", ".join(family.name for family in every_family() if why_not(family) is None)


def _detector(name: str) -> tuple[str, str, str]:
    facts = DETECTORS.get(name)
    example = ", ".join(f"`{label}`" for label in facts.example) or "none"
    return f"`{name}`", example, ", ".join(facts.families or ("all",))


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return (
        "\n".join([*head, *(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |" for row in rows)]) + "\n"
    )


def _paragraphs(text: str) -> str:
    """One idea a line in the source; wrapped as one paragraph."""
    blocks = text.strip().split("\n\n")
    return "\n\n".join(b if b.startswith("#") else _wrapped(" ".join(b.split())) for b in blocks) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.name} written")
