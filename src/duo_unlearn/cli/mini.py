"""`duo mini`: the embedded model's own commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

mini = typer.Typer(no_args_is_help=True, help="The embedded mini model: train it again, measure it, look at it.")

Folder = Annotated[Path | None, typer.Option("--model", help="A mini model's folder; default: the embedded one.")]


@mini.command()
def fit(
    output: Annotated[Path, typer.Option("--output", "-o", help="Work folder; the model is in its model/.")] = Path(
        "runs/mini"
    ),
    seed: Annotated[int, typer.Option("--seed", min=0, help="The seed of everything random.")] = 0,
    scale: Annotated[float, typer.Option("--scale", help="Multiplies all steps: 0.002 tries the code.")] = 1.0,
) -> None:
    """Train tokenizer, CLIP, VAE, denoiser and both judges from a seed; the same command resumes.

    duo mini fit -o runs/mini
    """
    import dataclasses
    import shlex

    from ..mini.fit.fit import Recipe
    from ..mini.fit.fit import fit as run

    recipe = dataclasses.replace(Recipe(), seed=seed)
    folder = run(output, recipe if scale == 1 else recipe.shortened(scale))
    print(f"the model is in {folder}; measure it: duo mini card --model {shlex.quote(str(folder))}", file=sys.stderr)


@mini.command()
def card(
    model: Folder = None,
    count: Annotated[int, typer.Option("--count", min=2, help="Held-out items of each figure.")] = 600,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The seed of the held-out items.")] = 1,
) -> None:
    """Print the embedded model's card; or measure the model of a folder and write its card: exit code 1 below a bar.

    duo mini card

    duo mini card --model runs/mini/model
    """
    from ..mini.fit.card import measure_and_write
    from ..mini.model.bundle import weights_folder

    if model is None:
        print((weights_folder() / "README.md").read_text(encoding="utf-8"), end="")
        return
    failed = measure_and_write(model, count=count, seed=seed)
    for line in failed:
        print(f"below its bar: {line}", file=sys.stderr)
    raise typer.Exit(1 if failed else 0)


@mini.command()
def scenes(
    output: Annotated[Path, typer.Option("--output", "-o", help="A PNG.")] = Path("scenes.png"),
    count: Annotated[int, typer.Option("--count", min=1, help="How many scenes.")] = 60,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The seed of the scenes.")] = 0,
) -> None:
    """Draw random scenes as training has them, ten a row, and print their captions.

    duo mini scenes -o scenes.png
    """
    import random

    from ..mini.fit.batches import training_scene
    from ..mini.world.captions import caption
    from ..mini.world.drawing import draw
    from ..storage.pictures import check_sheet, save_png, sheet

    check_sheet(output)
    rng, drawings = random.Random(seed), []
    for i in range(count):
        scene = training_scene(rng)
        drawings.append(draw(scene))
        print(f"{i:3} {caption(scene, rng).text}")
    save_png(sheet([drawings[first : first + 10] for first in range(0, count, 10)]), output)
