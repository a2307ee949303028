"""`duo models`: the families that can be erased, what they need, and which concepts have settings for them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ..settings.needs import SIZES


def _rows() -> list[dict[str, Any]]:
    from ..concepts.store import load_concept, shipped_concepts
    from ..families.registry import FAMILIES

    concepts = {name: load_concept(name) for name in shipped_concepts()}
    rows = []
    for name, family in FAMILIES.items():
        size = SIZES.get(name)
        rows.append(
            {
                "family": name,
                "title": family.title,
                "pipeline": family.pipeline,
                "parameters_millions": size.denoiser if size else None,
                "adapter_millions": size.adapter if size else None,
                "training_gb": _training(name),
                "settings_for": [concept for concept, found in concepts.items() if name in found.recommended],
                "needs": family.needs,
            }
        )
    return rows


def _training(family: str) -> float | None:
    """GB in bf16 with gradient checkpointing at the defaults: 4 pairs a step."""
    if family not in SIZES:
        return None
    size = SIZES[family]
    return round(size.denoiser * 2 / 1e3 + size.adapter * 16 / 1e3 + 12 * size.row[1], 1)


def models(as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False) -> None:
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
