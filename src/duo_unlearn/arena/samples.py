"""`duo sample`: pictures of a model with an adapter at some strength, a row a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import DuoError
from ..families.interface import SampleRequest
from ..families.load import load_model, pick_device
from ..progress import progress
from ..runs.folder import Run
from ..settings.resolve import resolve_settings
from ..storage.files import seed_of
from ..storage.pictures import save_png, sheet


def sample_grid(
    prompts: Sequence[str],
    path: Path,
    *,
    model: str | None,
    adapter: Path | None,
    strength: float,
    compare: bool = False,
    count: int,
    seed: int,
    steps: int,
    guidance: float,
    device: str,
) -> None:
    """Write a PNG with `count` images of each prompt, in a row. adapter: a run folder, an adapter folder or its file.

    model: None for that of the run, loaded as the run had it (but in float32), or mini. compare: two rows a prompt, the
    base above the model with the adapter, from the same noise.
    """
    from ..edits.lora import load_adapter, set_strength

    if compare and adapter is None:
        raise DuoError("there is nothing to compare the model with", hint="name an adapter: --adapter runs/erase")

    told: dict[str, Any] = {}
    if adapter is not None and Run(adapter).settings.exists():
        settings = resolve_settings({"output": str(adapter)})
        model = model or settings.model
        told = {"resolution": settings.resolution, "checkpoint_config": settings.checkpoint_config}
    loaded = load_model(model or "mini", pick_device(device), **told)
    if adapter is not None:
        run = Run(adapter)
        load_adapter(loaded, run.adapter if run.adapter.is_dir() else adapter)
    requests = [SampleRequest(prompt, seed_of(seed, "sample", i)) for prompt in prompts for i in range(count)]
    grids = []
    for amount in (0.0, strength) if compare else (strength,):
        if adapter is not None:
            set_strength(loaded, amount)
        with progress("sample", len(requests)) as report:
            grids.append(loaded.sample(requests, steps=steps, guidance=guidance, batch=8, report=report))
    save_png(sheet([images[i : i + count] for i in range(0, len(requests), count) for images in grids]), path)
