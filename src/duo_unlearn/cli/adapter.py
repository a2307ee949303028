"""The commands of one edit: export, verify and sample."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DuoError
from ..families.family import MOST_STEPS
from .options import AsJson, Device, Model, say
from .tables import print_error


def add_commands(app: typer.Typer) -> None:
    """Register them."""
    app.command()(export)
    app.command()(verify)
    app.command()(sample)


def export(
    source: Annotated[Path, typer.Argument(help="A run folder, or the folder of an edit.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")],
    form: Annotated[str, typer.Option("--format", help="diffusers, kohya, merged or checkpoint.")] = "diffusers",
    edit: Annotated[
        str | None, typer.Option("--edit", help="Which edit of the run; its eraser's when not given.")
    ] = None,
    strength: Annotated[float, typer.Option("--strength", help="What the change is multiplied by.")] = 1.0,
    model: Annotated[str | None, typer.Option("--model", help="The base, where the run does not name it.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="Precision of the weights: no (float32), fp16, bf16.")
    ] = "no",
    license_id: Annotated[
        str | None, typer.Option("--license", help="The license, by the hub's name; the base's when not given.")
    ] = None,
    push: Annotated[str | None, typer.Option("--push", help="Upload to this hub repository (owner/name).")] = None,
) -> None:
    """Export an edit, load it back, compare its images with the run's, and state what was measured of it.

    diffusers: an adapter for pipe.load_lora_weights. kohya: an adapter in one file, for ComfyUI and A1111. merged: a
    diffusers model. checkpoint: a model in one file, for A1111 and ComfyUI (Stable Diffusion 1, 2, XL). The first two
    take LoRA and low-rank edits of the denoiser; the others take every kind.

    duo export runs/sword -o out/lora --format kohya

    duo export runs/sword -o out/model --format merged
    """
    from ..export.export import push_folder
    from ..export.statement import STATEMENT
    from ..families.identify import is_hub_id
    from ..shipping import export as write

    options: dict[str, Any] = {
        "edit": edit, "model": model, "strength": strength, "device": device, "precision": precision,
        "license_id": license_id,
    }  # fmt: skip
    done = write(source, output, form, **options)
    say(f"export: {form} → {done.target}; loaded back, mean difference {done.difference:.3f} of 255 at most")
    if form in ("merged", "checkpoint"):
        say("the change is in the weights: it cannot be unloaded")
    else:
        say("whoever loads the model can leave an adapter out; where that matters, ship --format merged")
    if done.guards:
        say(f"without {', '.join(done.guards)}: a guard acts while duo samples, and no export holds one")
    say(f"statement → {done.folder / STATEMENT}; `duo verify {shlex.quote(str(done.folder))}` checks it")
    if Path(done.base).name != done.base and not is_hub_id(done.base):
        say(f"it names its base as it lies here, {done.base}: whoever gets the folder can read that")
    if push is not None:
        say(f"uploaded → {push_folder(done.folder, push)}")


def verify(
    folder: Annotated[Path, typer.Argument(help="A folder that `duo export` wrote.")],
    base: Annotated[
        str | None, typer.Option("--base", help="Where the base lies, if not under the statement's name for it.")
    ] = None,
    remeasure: Annotated[
        int, typer.Option("--remeasure", min=0, help="How many prompts of each set are sampled and judged again.")
    ] = 0,
    concept: Annotated[
        str | None, typer.Option("--concept", help="The concept file that --remeasure asks, where it is not shipped.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides which prompts are sampled again.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="What could not be checked is a failure too.")] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Check an exported folder: its files, its numbers, its weights; with --remeasure some verdicts too.

    Exit code 0: all that was checked agrees. 1: something differs, or the folder has no statement that can be read;
    with --strict also where something could not be checked.

    duo verify out/lora

    duo verify out/lora --remeasure 20 --strict
    """
    from ..arena.verify import HINT
    from ..families.identify import model_faults
    from ..shipping import verify as check

    if base is not None and (faults := model_faults(base)[0]):
        raise faults[0]
    for name, given in (("--concept", concept), ("--seed", seed)):
        if given and not remeasure:
            raise DuoError(f"{name} is for --remeasure alone", got="no --remeasure", hint="--remeasure 20")
    found = check(folder, base=base, concept=concept, remeasure=remeasure, seed=seed, device=device or "auto")
    fails = found.has("differs") or (strict and found.has("not checked"))
    if as_json:
        print(json.dumps({"agrees": not fails, "checks": [one._asdict() for one in found.checks]}))
    for one in [] if as_json else found.checks:
        if one.outcome == "differs":
            print_error(DuoError(f"{one.name}: {folder} is not what its statement says", got=one.words, hint=HINT))
        else:
            say(f"{one.name}: {one.words}" if one.outcome == "agrees" else f"{one.name}: not checked, {one.words}")
    if fails:
        raise typer.Exit(1)


def sample(
    prompts: Annotated[list[str], typer.Argument(help="The prompts.")],
    model: Model = None,
    adapter: Annotated[
        Path | None, typer.Option("--adapter", help="A run folder, the folder of an edit, or its file.")
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="A system of the run, e.g. duo+negative-prompt.")
    ] = None,
    strength: Annotated[float, typer.Option("--strength", help="Strength of the edit; 0 is the base exactly.")] = 1.0,
    compare: Annotated[bool, typer.Option("--compare", help="The base above, the system below.")] = False,
    count: Annotated[int, typer.Option("--count", min=1, help="How many images a prompt.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, max=(1 << 32) - 1, help="The seed of the noise.")] = 0,
    steps: Annotated[int, typer.Option("--steps", min=2, max=MOST_STEPS, help="How many sampling steps.")] = 25,
    guidance: Annotated[float, typer.Option("--guidance", min=0, help="The guidance scale.")] = 5.0,
    device: Device = "auto",
    output: Annotated[Path, typer.Option("--output", "-o", help="A PNG: a row a prompt.")] = Path("sample.png"),
) -> None:
    """Sample a model, with or without an edit, or any system of a run.

    duo sample "an armed blue knight in the snow" --adapter runs/sword --compare -o knight.png
    """
    if blank := [prompt for prompt in prompts if not prompt.strip()]:
        raise DuoError("a prompt is empty", got=repr(blank[0]), hint='duo sample "a red knight with a flower"')
    from ..shipping import sample as write

    options: dict[str, Any] = {
        "model": model, "adapter": adapter, "system": system, "strength": strength, "compare": compare,
        "count": count, "seed": seed, "steps": steps, "guidance": guidance, "device": device or "auto",
    }  # fmt: skip
    write(prompts, output, **options)
    say(f"{len(prompts) * count} images → {output}")
