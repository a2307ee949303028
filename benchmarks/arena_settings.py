"""What the systems of the arena are made with, for benchmarks/arena.py: what is recommended, and defaults beside it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from duo_unlearn.concepts.store import load_concept
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.erasers.wraps import WRAPS
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.registry import Registry
from duo_unlearn.settings.tree import merge

ROBUST: Final = "uce+robust-duo"
"""The system of the recipe `robust`, whose floor has options of its own."""
PAPER_FORM: Final[Mapping[str, Any]] = {"pairing": "paired", "captions": "none", "caption_dropout": 0.0, "beta": 100.0}
"""Options of DUO in the paper's own form where they are not the recommended ones: it reads images and no word.

β is the one that does best in docs/notes/mini-sweep.md.
"""
FORMS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "duo-paper": ("duo", PAPER_FORM),
    "advunlearn-paper": ("advunlearn", {
        "form": "empty", "plain_share": 0.0, "retain_behind": 0.0, "renew_every": 10, "attack_tokens": 1,
        "attack_lr": 1e-3, "retain_batch": 8, "retain_weight": 1.0,
    }),
    "eraseflow-paper": ("eraseflow", {
        "sampling_steps": 20, "steps": 100, "lr": 1e-3, "at_once": 20, "paths_at_once": 1,
    }),
}  # fmt: skip
"""Erasers in a form of their papers beside a recommended one of ours: system → eraser, options that differ.

AdvUnlearn's are those that did best in docs/notes/rivals.md without an option of ours. EraseFlow's sample a path for
each of 100 steps.
"""
ALL: Final = "-all"
"""The end of the name of an eraser that is given prompts of every wording."""
KINDS: Final[dict[str, Registry[Any]]] = {"erasers": ERASERS, "wraps": WRAPS, "guards": GUARDS}


load = functools.cache(load_concept)


def options_of(concept: str, kind: str, name: str, system: str = "") -> dict[str, Any]:
    """All options of an eraser, a wrap or a guard of a system on the mini model: recommended ones, and defaults."""
    known = load(concept).robust if system == ROBUST else load(concept).recommended
    recommended = known["mini"].settings
    own = recommended["train"] if (kind, name) == ("erasers", "duo") else recommended.get(kind, {}).get(name, {})
    return _whole(concept, kind, name, KINDS[kind].get(name).settings.model_validate(own).model_dump(mode="json"))


def given_options(concept: str) -> dict[str, Any]:
    """Every option, dotted, as settings of a run.

    A run folder keeps the options that were recommended when it was made, so none is left to it.
    """
    return {
        f"{kind}.{name}.{key}": value
        for kind, registry in KINDS.items()
        for name in registry.names()
        if (kind, name) not in (("erasers", "duo"), ("erasers", "robust-duo"))
        for key, value in options_of(concept, kind, name).items()
    }


def differences(concept: str, system: Mapping[str, Any]) -> list[str]:
    """Every option that a system of arena.json was made with and would not be made with now: "esd-x: eta 3, now 1"."""
    own: Mapping[str, Any] = FORMS[system["system"]][1] if system["system"] in FORMS else {}
    if system["system"].endswith(ALL):
        own = {"wordings": "all"}
    found = []
    for part in system["parts"]:
        kind, name = ("erasers", part["eraser"]) if part["kind"] == "edit" else ("guards", part["name"])
        found += _unlike(concept, kind, name, part["settings"], own, system["system"])
        if wrap := part.get("wrap"):
            found += _unlike(concept, "wraps", wrap["name"], wrap["settings"])
    return found


def _unlike(
    concept: str, kind: str, name: str, options: Mapping[str, Any], instead: Mapping[str, Any] = {}, system: str = ""
) -> list[str]:
    made, wanted = _whole(concept, kind, name, options), {**options_of(concept, kind, name, system), **instead}
    unlike = [key for key in made if key not in wanted or made[key] != wanted[key]]
    return [f"{name}: {key} {made[key]}, now {wanted.get(key, 'no option')}" for key in unlike]


def _whole(concept: str, kind: str, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with defaults for those that they do not have; a detector that nobody named is the concept's."""
    whole = merge(KINDS[kind].get(name).settings().model_dump(mode="json"), options)
    return {**whole, "detector": whole["detector"] or load(concept).detector.name} if "detector" in whole else whole
