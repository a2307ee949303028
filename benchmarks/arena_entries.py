"""A system's entry in arena.json, for benchmarks/arena.py: from two pages, and as the report has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.records import Estimate
from duo_unlearn.report.arena import Cost, Part, Standing
from duo_unlearn.report.arena_worst import is_counted
from duo_unlearn.runs.results import WORST, estimate_of, is_in_worst

AGAIN: Final = "-again"
"""The end of the name of a run folder in which systems are made once more; its page's numbers of attacks alone count.

An entry keeps them under "again": each has the hash of the edits that it is of.
"""


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A system's entry with the estimates of both, the new one's in the place of the old one's.

    What the old one has of other edits goes, its cost and what was made again too, once there is anything of the new
    one. A worst case stays where it is of all attacks that are there.
    """
    if not new["estimates"]:
        return dict(old)
    now = {e["sha256"] for e in new["estimates"]}
    same = [e for e in old["estimates"] if e["sha256"] in now]
    found = {estimate_of(e).of_what: e for e in [*same, *new["estimates"]] if e["attack"] != WORST}
    worst = {
        estimate_of(e).of_what: e
        for some in (same, new["estimates"])
        for e in some
        if e["attack"] == WORST and attacks_of(found.values(), e) == attacks_of(some, e)
    }
    cost = {**new["cost"], **{key: value for key, value in old["cost"].items() if same and value is not None}}
    again = [e for e in old.get("again", []) if same and estimate_of(e).of_what not in found]
    whole = {**old, **new, "cost": cost, "estimates": [*found.values(), *worst.values()]}
    whole.pop("again", None)
    return whole | ({"again": again} if again else {})


def joined(old: Mapping[str, Any], again: Mapping[str, Any]) -> dict[str, Any]:
    """A system's entry with the attacks that were made on it once it was made again; what it had of its own stays.

    A plain number of both whose intervals lie apart is a ValueError: then it is another system.
    """
    own = {estimate_of(e).of_what: e for e in old["estimates"]}
    for e in again["estimates"]:
        first = own.get(estimate_of(e).of_what)
        apart = first is not None and max(e["low"], first["low"]) > min(e["high"], first["high"])
        if first is not None and e["attack"] is None and apart:
            where = f"{e['metric']}, {e['scenario']}"
            raise ValueError(
                f"{e['system']}, made again, is another: {where} {e['value']:.3f}, was {first['value']:.3f}"
            )
    attacks = [e for e in again["estimates"] if e["attack"] not in (None, WORST) and estimate_of(e).of_what not in own]
    there = {estimate_of(e).of_what: e for e in [*old.get("again", []), *attacks]}
    return {**old, "again": [*there.values()]}


def tell_what_is_seen(system: dict[str, Any]) -> None:
    """Say of a system's guards what an aware search sees now, where none was made yet; else what it saw stands."""
    if any(e["search"] == "aware" for e in [*system["estimates"], *system.get("again", [])]):
        return
    for part in system["parts"]:
        if part["kind"] == "guard":
            part["seen"] = GUARDS.get(part["name"]).seen


def is_again(standing: Standing, estimate: Estimate) -> bool:
    """Whether a number is of edits that were made again: of other weights than the system's first number."""
    return estimate.sha256 != standing.estimates[0].sha256


def attacks_of(estimates: Iterable[Mapping[str, Any]], worst: Mapping[str, Any]) -> set[tuple[str | None, str | None]]:
    """The attacks that count, with a worst case's prompts and budget, each with its awareness; and no attack."""
    return {
        (e["attack"], e["search"])
        for e in estimates
        if e["scenario"] == worst["scenario"] and e["attack"] != WORST
        if e["attack"] is None
        or (e["preset"] == worst["preset"] and is_in_worst(e["search"], worst["search"]) and is_counted(e["attack"]))
    }


def standing_of(entry: Mapping[str, Any]) -> Standing:
    """A system of arena.json."""
    own = {key: value for key, value in entry.items() if key not in ("cost", "estimates", "again", "parts")}
    names = ("kind", "name", "eraser", "settings")
    parts = [
        Part(**{key: part.get(key) for key in names}, more={k: v for k, v in part.items() if k not in names})
        for part in entry["parts"]
    ]
    there = [*entry["estimates"], *entry.get("again", [])]
    estimates = [estimate_of({key: value for key, value in e.items() if key != "by_seed"}) for e in there]
    return Standing(**own, cost=Cost(**entry["cost"]), estimates=estimates, parts=parts)
