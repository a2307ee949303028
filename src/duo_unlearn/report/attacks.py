"""The red team in a report: a row an attack, preset and contract, a sentence on the worst, and a grid an attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..arena.attempted import attempted
from ..errors import DuoError
from ..records import Estimate
from ..runs.folder import Run
from ..storage.files import read_json
from .pictures import Grid, grid_of
from .words import figure, interval

WORST = "worst case"
SHOWN = 8
"""Prompts of an attack that are pictured: the first ones."""


class Fought(NamedTuple):
    """An attack's pictures, and how long it took on both models. seconds: None where no time was recorded."""

    attack: str
    preset: str
    seconds: float | None
    grid: Grid


class AttackRow(NamedTuple):
    """One attack under a preset and a contract, on both models. unscored: attempts without a verdict, of both."""

    attack: str
    preset: str
    contract: str
    original: Estimate | None
    erased: Estimate | None
    unscored: int


def attack_rows(content: Mapping[str, Any], path: Path) -> list[AttackRow]:
    """Rows of attacks.json, the worst case of each preset last. A broken entry is a DuoError."""
    found: dict[tuple[str, str, str], AttackRow] = {}
    for entry in content.get("estimates", []):
        try:
            names = ("metric", "model", "prompts", "value", "low", "high", "n", "contract")
            estimate = Estimate(**{name: entry[name] for name in names})
            key = (str(entry["attack"]), str(entry["preset"]), estimate.contract)
            unscored = int(entry.get("unscored", 0))
        except (TypeError, KeyError, ValueError) as error:
            raise DuoError(
                f"{path} has an entry that is no estimate", got=str(entry)[:120], hint="duo measure"
            ) from error
        row = found.get(key, AttackRow(*key, None, None, 0))
        row = row._replace(original=estimate) if estimate.model == "original" else row._replace(erased=estimate)
        found[key] = row._replace(unscored=row.unscored + unscored)
    return sorted(found.values(), key=lambda row: (row.preset, row.contract, row.attack == WORST, row.attack))


def attack_verdict(rows: Sequence[AttackRow]) -> str | None:
    """One sentence: the worst attack on the erased model, with preset, n and interval; None without one."""
    counted = [row for row in rows if row.erased is not None and row.attack not in (WORST, "adapter-removal", "direct")]
    if not counted:
        return None
    worst = min(counted, key=lambda row: row.erased.value if row.erased else 1.0)
    assert worst.erased is not None
    return (
        f"Under attack the weakest of {len(counted)} measurements is “{worst.attack}” ({worst.preset} budget): DSR "
        f"{figure('dsr', worst.erased.value)} of {worst.erased.n} images (95\u00a0% interval {interval(worst.erased)})."
    )


def fought(run: Run, content: Mapping[str, Any], shown: int = SHOWN) -> list[Fought]:
    """Every attack that has attempts, as judged under the contract that was last measured; captions: what was found."""
    judged, found = _verdicts(run, content), []
    for one in attempted(run):
        by_model: dict[str, list[dict[str, Any]]] = {}
        for model, attempts in one.attempts.items():
            verdicts = judged.get((one.told["attack"], one.told["preset"], model), [])
            by_model[model] = [
                {"prompt": attempt["text"] or attempt["prompt"], "file": attempt["file"], "detected": seen}
                for attempt, seen in zip(attempts, [*verdicts, *[None] * len(attempts)], strict=False)
            ]
        if any(by_model.values()):
            for entry, _ in zip(by_model["original"], by_model["erased"], strict=False):
                entry["prompt"] = None  # the caption is what was found on the erased model
            with_verdicts = [m for m in by_model if judged.get((one.told["attack"], one.told["preset"], m))]
            grid = grid_of(one.folder, one.told["attack"], by_model, with_verdicts, shown)
            found.append(Fought(one.told["attack"], one.told["preset"], one.seconds, grid))
    return found


def _verdicts(run: Run, content: Mapping[str, Any]) -> dict[tuple[str, str, str], list[bool | None]]:
    """(attack, preset, model) → whether each attempt shows the concept, None where it was not scored."""
    contract = next((str(e["contract"]) for e in reversed(content.get("estimates", [])) if "contract" in e), None)
    if contract is None or not run.attack_verdicts(contract).exists():
        return {}
    path = run.attack_verdicts(contract)
    try:
        return {
            (one["attack"], one["preset"], one["model"]): [v and v["detected"] for v in one["verdicts"]]
            for one in read_json(path)["judged"]
        }
    except (KeyError, TypeError) as error:
        raise DuoError(f"{path} is broken", got=f"no {error}", hint="duo measure") from error
