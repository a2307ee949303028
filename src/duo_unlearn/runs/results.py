"""results.json: what a run measured, with a hash over all of it that is checked when it is read."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from ..errors import DuoError
from ..records import Estimate
from ..storage.files import digest, read_object, write_json
from .folder import Run

VERSION: Final = 2
ANOTHER_EDIT: Final = "of another edit than the one that is there"
STALE: Final = f"its attempts are {ANOTHER_EDIT}: `duo evaluate` or `duo attack` again"
WORST: Final = "worst case"
"""The attack's name in estimates over all attacks of a preset."""
EVERY_SYSTEM: Final = "every system"
"""In the place of a system's name, of what no system has a number of."""


class Results(NamedTuple):
    """The content of results.json.

    systems: name, hash, edits and guards of each. absent: {metric, system, scenario, attack, preset, reason} of what
    there is no number for. quick: whether fewer prompts or steps than the default were used for some number. labels:
    what people's labels say of the judges; None: there are none.
    """

    concept: str
    model: str
    seed: int
    quick: bool
    systems: list[dict[str, Any]]
    estimates: list[Estimate]
    absent: list[dict[str, Any]]
    labels: dict[str, Any] | None = None


def write_results(
    run: Run,
    *,
    concept: str,
    model: str,
    seed: int,
    quick: bool,
    systems: Sequence[dict[str, Any]],
    estimates: Sequence[Estimate],
    absent: Sequence[dict[str, Any]],
    labels: dict[str, Any] | None = None,
) -> tuple[Results, bool]:
    """Write results.json where its content has changed; gives it, and whether it has."""
    content: dict[str, Any] = {
        "version": VERSION, "concept": concept, "model": model, "seed": seed, "quick": quick, "systems": list(systems),
        "estimates": [estimate.as_json() for estimate in estimates], "absent": list(absent),
        **({"labels": labels} if labels is not None else {}),
    }  # fmt: skip
    results = Results(concept, model, seed, quick, list(systems), list(estimates), list(absent), labels)
    whole = {**content, "digest": digest(content)}
    try:
        same = run.results.exists() and read_object(run.results) == whole
    except DuoError as error:
        print(f"{error.problem}: it is made again", file=sys.stderr, flush=True)
        same = False
    if not same:
        write_json(run.results, whole)
    return results, not same


def read_results(run: Run) -> Results:
    """The content of results.json. A missing, broken or edited one is a DuoError that says how to make it again."""
    hint = f"duo judge {run.argument}: it is made again from the attempts, and nothing is sampled"
    if not run.results.exists():
        raise DuoError(
            f"{run.folder} holds no results", got=f"no {run.results.name}", hint=f"duo evaluate -o {run.argument}"
        )
    content = read_object(run.results, hint)
    written = content.pop("digest", None)
    if content.get("version") != VERSION or written != digest(content):
        got = "another version" if content.get("version") != VERSION else "its content was changed after it was written"
        raise DuoError(f"{run.results} cannot be trusted", got=got, hint=hint)
    try:
        estimates = [estimate_of(entry) for entry in content["estimates"]]
        return Results(
            content["concept"], content["model"], content["seed"], content["quick"], content["systems"], estimates,
            content["absent"], content.get("labels"),
        )  # fmt: skip
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise DuoError(f"{run.results} is broken", got=f"no {error}", hint=hint) from error


def is_in_worst(search: str | None, worst: str | None) -> bool:
    """Whether a search is of a worst case of some awareness: who is aware of a guard may also search without it."""
    return search in (None, worst) or worst == "aware"


def estimate_of(entry: Mapping[str, Any]) -> Estimate:
    """An estimate from its JSON object."""
    return Estimate(**{**entry, "seeds": tuple(entry["seeds"])})
