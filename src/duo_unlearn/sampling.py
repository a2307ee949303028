"""`duo sample`: pictures of a model with an adapter at some strength, a row a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from .families.base import SampleRequest
from .families.load import load_model, pick_device
from .families.stable_diffusion import seed_of
from .progress import progress
from .run import Run
from .storage import atomic


def sample_grid(
    prompts: Sequence[str],
    path: Path,
    *,
    model: str,
    adapter: Path | None,
    strength: float,
    count: int,
    seed: int,
    steps: int,
    guidance: float,
    device: str,
) -> None:
    """Write a PNG with `count` images of each prompt. adapter: a run folder, an adapter folder or its file."""
    from .adapters.lora import load_adapter

    loaded = load_model(model, pick_device(device))
    if adapter is not None:
        run = Run(adapter)
        load_adapter(loaded, run.adapter if run.adapter.is_dir() else adapter, strength=strength)
    requests = [SampleRequest(prompt, seed_of(seed, "sample", i)) for prompt in prompts for i in range(count)]
    with progress("sample", len(requests)) as report:
        images = loaded.sample(requests, steps=steps, guidance=guidance, batch=8, report=report)
    width, height = images[0].size
    sheet = Image.new("RGB", (count * width, len(prompts) * height))
    for i, image in enumerate(images):
        sheet.paste(image, (i % count * width, i // count * height))
    with atomic(path) as temporary:
        sheet.save(temporary, "PNG")
