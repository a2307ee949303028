"""The red team's numbers in a report: a row an attack, preset and contract, and a sentence on the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DuoError
from ..records import Estimate
from .summary import figure, interval

WORST = "worst case"


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
