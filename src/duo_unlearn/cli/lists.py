"""What there is: models, attacks, erasers, wraps and guards."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable
from typing import Any

import typer

from ..concepts.store import load_concept, shipped_concepts
from ..families.family import Size
from ..families.registry import every_family
from .options import AsJson


def add_commands(app: typer.Typer) -> None:
    """Register them."""
    app.command()(models)
    app.command()(attacks)
    app.command()(erasers)
    app.command()(wraps)
    app.command()(guards)


def _rows() -> list[dict[str, Any]]:
    """One row a family, as `duo models --json` prints it."""
    concepts = {name: load_concept(name) for name in shipped_concepts()}
    return [
        {
            "family": family.name,
            "title": family.title,
            "pipeline": family.pipeline,
            "parameters_millions": family.size and family.size.denoiser,
            "adapter_millions": family.size and family.size.adapter[0],
            "training_gb": family.size and _training(family.size),
            "settings_for": [name for name, concept in concepts.items() if family.name in concept.recommended],
            "needs": family.needs,
        }
        for family in every_family()
    ]


def _training(size: Size) -> float:
    """GB in bf16 with gradient checkpointing at the defaults: 4 pairs a step, which are 12 rows."""
    return round(size.denoiser * 2 / 1e3 + size.adapter[0] * 16 / 1e3 + 12 * size.row[1], 1)


def models(as_json: AsJson = False) -> None:
    """The model families, what they need, and the concepts that have settings for them.

    duo models
    """
    rows = _rows()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(f"{row['family']:<6} {row['title']} ({row['pipeline']})")
        if row["training_gb"] is not None:
            print(
                f"       {row['parameters_millions']:.0f} M parameters; training in bf16 with gradient checkpointing: "
                f"about {row['training_gb']:.1f} GB"
            )
        print(f"       {row['needs']}")
        print(f"       settings for: {', '.join(row['settings_for']) or 'none of its own (the defaults)'}")


def attacks(as_json: AsJson = False) -> None:
    """The attacks, the level that each acts at, and their budgets.

    duo attacks
    """
    from ..attacks.registry import ATTACKS

    records = [ATTACKS.get(name) for name in ATTACKS.names()]
    rows: list[dict[str, Any]] = [
        {"attack": one.name, "title": one.title, "found_on": one.found_on, "level": one.level}
        | {preset: dataclasses.asdict(one.budgets[preset]) for preset in ("quick", "paper")}
        for one in records
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    wide = 2 + max(len(row["attack"]) for row in rows)
    for row in rows:
        print(f"{row['attack']:<{wide}}{row['title']} (level: {row['level']})")
        for preset in ("quick", "paper"):
            budget = {key: value for key, value in row[preset].items() if value is not None}
            if budget:
                print(f"{'':<{wide}}  {preset}: " + ", ".join(f"{key} {value}" for key, value in budget.items()))


def erasers(as_json: AsJson = False) -> None:
    """The erasers: what they read, where they act, what they make, the families that have them, options and defaults.

    A closed form takes seconds and no pass of the denoiser. docs/arena-tables.md has what each training costs on one
    model.

    duo erasers
    """
    from ..edits.interface import KINDS
    from ..erasers.registry import ERASERS
    from ..settings.tree import place_of

    rows = []
    for name in ERASERS.names():
        eraser = ERASERS.get(name)
        families = [family.name for family in every_family() if eraser.why_not(family) is None]
        rows.append(
            {"name": name, "title": eraser.title, "reads": eraser.reads, "level": eraser.level, "families": families}
            | {"makes": KINDS[eraser.makes], "by": "training" if eraser.course is not None else "a closed form"}
            | _options(place_of(name), eraser.settings)
        )
    _print_rows(rows, as_json, _eraser_line)


def wraps(as_json: AsJson = False) -> None:
    """The wraps, which change how an eraser trains, the erasers that can have them, and their options.

    duo wraps

    duo erase --concept sword -o runs/sword --eraser esd-x --wrap meta-unlearning
    """
    from ..erasers.registry import ERASERS
    from ..erasers.wraps import WRAPS, why_not_wrapped

    able = [name for name in ERASERS.names() if why_not_wrapped(ERASERS.get(name)) is None]
    families = [family.name for family in every_family()]
    rows = []
    for name in WRAPS.names():
        wrap = WRAPS.get(name)
        described = {"name": name, "title": wrap.title, "erasers": able, "families": families}
        rows.append(described | _options(f"wraps.{name}", wrap.settings))
    _print_rows(rows, as_json, lambda row: f"wraps {', '.join(row['erasers'])}")


def guards(as_json: AsJson = False) -> None:
    """The guards, where they act, the families that have them, and their options.

    duo guards
    """
    from ..guards.registry import GUARDS

    rows = []
    for name in GUARDS.names():
        guard = GUARDS.get(name)
        families = [family.name for family in every_family() if guard.why_not(family) is None]
        rows.append(
            {"name": name, "title": guard.title, "acts_on": guard.acts_on, "level": guard.level, "cost": guard.cost}
            | {"replaces": guard.replaces, "seen": guard.seen, "families": families}
            | _options(f"guards.{name}", guard.settings)
        )
    _print_rows(rows, as_json, _guard_line)


def _guard_line(row: dict[str, Any]) -> str:
    seen = f"an aware search sees {row['seen'].replace('whole', 'the whole').replace('part', 'a part')} of it"
    return f"acts on the {row['acts_on']} ({row['level']}), {seen}, costs {row['cost']}"


def _options(prefix: str, settings: Any) -> dict[str, dict[str, Any]]:
    """What each option means, and what it is where nobody sets it, by its dotted key."""
    from ..settings.tree import setting_keys

    meanings, tree = setting_keys(settings), settings().model_dump(mode="json")
    defaults = {key: functools.reduce(lambda part, name: part[name], key.split("."), tree) for key in meanings}
    return {
        name: {f"{prefix}.{key}": value for key, value in found.items()}
        for name, found in (("options", meanings), ("defaults", defaults))
    }


def _eraser_line(row: dict[str, Any]) -> str:
    return f"reads the pairs' {row['reads']}, acts on the {row['level']}, makes {row['makes']} by {row['by']}"


def _print_rows(rows: list[dict[str, Any]], as_json: bool, line: Callable[[dict[str, Any]], str]) -> None:
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    wide = 2 + max(len(row["name"]) for row in rows)
    for row in rows:
        print(f"{row['name']:<{wide}}{row['title']}: {line(row)}; {', '.join(row['families'])}")
        for key, text in row["options"].items():
            print(f"{'':<{wide}}  --set {key}={json.dumps(row['defaults'][key], ensure_ascii=False)}: {text}")
