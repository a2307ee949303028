"""`duo compose` and `duo export`: what is done with an adapter once it is trained."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DuoError

Source = Annotated[Path, typer.Argument(help="A run folder, or an adapter folder.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def compose(
    sources: Annotated[list[Path], typer.Argument(help="Run folders, or adapter folders.")],
    output: Output,
    weight: Annotated[list[float] | None, typer.Option("--weight", help="Of each adapter, in order; 1 each.")] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="What they do to one another.")] = True,
    prompts: Annotated[int, typer.Option("--prompts", min=1, help="Of each set, when measuring.")] = 100,
) -> None:
    """Add adapters up, exactly, and measure each concept and what must stay, before and after.

    duo compose runs/sword runs/balloon -o runs/both

    duo compose runs/blood runs/gun -o runs/violence --weight 1 --weight 0.8
    """
    from ..experiments.interference import check_runs, compose_runs
    from ..experiments.interference import measure as measure_runs
    from .tables import interference_table

    if measure:
        check_runs(sources)
    parts = compose_runs(sources, weight or [], output)
    _say(f"compose: {len(parts)} adapters, rank {sum(int(p.config['r']) for p in parts)} → {output / 'adapter'}")
    if measure:
        counts: dict[str, Any] = {
            "prompts": prompts,
            "keep_prompts": prompts,
            "neighbour_prompts": max(1, prompts // 2),
        }
        interference_table(measure_runs(sources, output, counts))
        _say(f"measured → {output / 'interference.json'}")


def export(
    source: Source,
    output: Output,
    form: Annotated[str, typer.Option("--format", help="diffusers, kohya, merged or checkpoint.")] = "diffusers",
    strength: Annotated[float, typer.Option("--strength", help="Of the adapter.")] = 1.0,
    model: Annotated[str | None, typer.Option("--model", help="The base, where the run does not name it.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="Of the weights: no (float32), fp16, bf16.")] = "no",
    push: Annotated[str | None, typer.Option("--push", help="Upload to this hub repository (owner/name).")] = None,
) -> None:
    """Export an adapter, load it back, and compare its images with the run's.

    diffusers: for pipe.load_lora_weights. kohya: one file for ComfyUI and A1111. merged: a diffusers model.
    checkpoint: a model in one file, for A1111 and ComfyUI (Stable Diffusion 1, 2, XL).

    duo export runs/sword -o out/lora --format kohya

    duo export runs/sword -o out/model --format merged
    """
    from ..export.export import FORMS, Form, push_folder
    from ..export.export import export as write

    if form not in FORMS:
        raise DuoError("unknown format", got=form, hint=f"one of: {', '.join(FORMS)}")
    chosen: Form = form  # type: ignore[assignment]
    done = write(source, output, chosen, model=model, strength=strength, device=device, precision=precision)
    _say(f"export: {form} → {done.target}; loaded back, mean difference {done.difference:.3f} of 255 at most")
    if form in ("merged", "checkpoint"):
        _say("the change is in the weights: it cannot be unloaded")
    else:
        _say("whoever loads the model can leave an adapter out; where that matters, ship --format merged")
    if push is not None:
        _say(f"uploaded → {push_folder(done.folder, push)}")
