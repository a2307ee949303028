"""The commands of a run's stages: erase, pairs, train, evaluate, check, demo, report, drop."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DuoError
from .options import (
    AsJson,
    Erased,
    Fit,
    Lora,
    Output,
    RunFolder,
    Seed,
    Step,
    SystemNames,
    TextEncoder,
    Unet,
    Workers,
    behind,
    flag_settings,
    one_folder,
    opened,
    say,
    settings_command,
    step_number,
    system_names,
)
from .outlook import ALL
from .tables import estimates_table, print_error
from .workers import share

SOURCES = ("erased", "lora", "unet", "text_encoder")


def add_commands(app: typer.Typer) -> None:
    """Register them."""
    settings_command(
        app,
        "erase",
        "Erase a concept: pairs, edit, evaluation, report. The same command resumes.\n\n"
        "duo erase --model mini --concept sword -o runs/sword\n\n"
        "duo erase --concept sword -o runs/sword --eraser uce\n\n"
        "duo erase --concept sword -o runs/sword --eraser esd-x --wrap meta-unlearning\n\n"
        "duo erase --concept sword -o runs/sword --guard negative-prompt\n\n"
        "duo erase --model ./stable-diffusion-v1-5 --concept my-concept.yaml -o runs/sd15 --mixed_precision fp16\n\n"
        "duo erase run.yaml --pairs my-pairs/ -o runs/mine --set train.beta=250\n\n"
        "Pairs and evaluation by a process a GPU, or a core, and the training by one of them:\n\n"
        "duo erase --concept sword -o runs/sword --workers auto",
        _erase,
        {"workers": Workers},
    )
    settings_command(
        app,
        "pairs",
        "Make the pairs, or import yours.\n\n"
        "duo pairs --concept sword -o runs/sword\n\n"
        "duo pairs --concept sword -o runs/sword --workers auto",
        _pairs,
        {"workers": Workers},
    )
    settings_command(
        app, "train", "Make the edit from the run's pairs.\n\nduo train -o runs/sword --max_train_steps 400", _train
    )
    settings_command(
        app,
        "evaluate",
        "Measure the run's systems beside the original.\n\n"
        "duo evaluate -o runs/sword\n\n"
        "By a process a GPU, or a core:\n\n"
        "duo evaluate -o runs/sword --workers auto\n\n"
        "Started again beside itself, on another machine say, it shares the work:\n\n"
        "CUDA_VISIBLE_DEVICES=1 duo evaluate -o runs/sword\n\n"
        "The adapter as it was after one step of its training, and the best one on pairs that did not train:\n\n"
        "duo evaluate -o runs/sword --step 450\n\n"
        "duo evaluate -o runs/sword --step best\n\n"
        "What others erased:\n\n"
        "duo evaluate --model ./sd15 --erased ./sd15-erased --concept nudity -o runs/theirs",
        _evaluate,
        {
            "system": SystemNames,
            "erased": Erased,
            "lora": Lora,
            "unet": Unet,
            "text_encoder": TextEncoder,
            "step": Step,
            "workers": Workers,
        },
    )
    settings_command(
        app,
        "check",
        "Find every fault of a run before it starts, offline; or verify a whole run folder.\n\n"
        "duo check run.yaml\n\n"
        "duo check runs/sword\n\n"
        "What a run would be set to with another β, on top of what its folder says:\n\n"
        "duo check runs/sword --beta 9\n\n"
        "What a run can be set to so that it fits one device of 16 GB, with the estimate of each:\n\n"
        "duo check --model ./sdxl --concept nudity --fit 16",
        _check,
        {"fit": Fit, "as_json": AsJson},
    )
    app.command()(report)
    app.command()(demo)
    app.command()(drop)


def _erase(values: dict[str, Any], config: Path | None, more: dict[str, Any]) -> None:
    from ..pipeline import erase
    from ..report.ending import ending

    run = opened(values, config)
    share(more.get("workers"), {run.run.folder: ALL}, sys.argv[1:], device=run.settings.device)
    results = erase(run, say)
    estimates_table(results.estimates)
    # The original, the bare edit, and with guards the edit behind these.
    system = run.systems()[1].name
    say(f"{ending(results, system, run.concept.asking)}; report: {run.run.report}")


def _pairs(values: dict[str, Any], config: Path | None, more: dict[str, Any]) -> None:
    from ..pipeline import make_pairs

    run = opened(values, config)
    share(more["workers"], {run.run.folder: ["pairs"]}, sys.argv[1:], device=run.settings.device)
    make_pairs(run, say)


def _train(values: dict[str, Any], config: Path | None, _more: dict[str, Any]) -> None:
    from ..pipeline import train

    train(opened(values, config), say)


def _evaluate(values: dict[str, Any], config: Path | None, more: dict[str, Any]) -> None:
    from ..pipeline import evaluate, take_step

    run = opened(values, config)
    taken = [take_step(run, step_number(more["step"]), say)] if more["step"] is not None else []
    share(more["workers"], {run.run.folder: ["images"]}, sys.argv[1:], device=run.settings.device)
    names = system_names(run, more["system"], None, {source: more[source] for source in SOURCES})
    # Beside a name a guard is of what is named; else the settings' systems have it.
    named = behind([*(names or []), *taken], run.settings.guard if values.get("guard") else [])
    estimates_table(evaluate(run, named or None, say).estimates)


def _check(values: dict[str, Any], config: Path | None, more: dict[str, Any]) -> None:
    if config is not None and config.is_dir():
        if more["fit"] is None and not values:
            _check_folder(config, as_json=bool(more["as_json"]))
            return
        values = {**values, "output": str(one_folder(config, values.get("output")))}
        config = None  # a run folder has its settings
    from ..concepts.store import load_concept
    from ..settings.check import find_faults
    from ..settings.fit import as_lines, fits, memory_of
    from ..settings.needs import as_json, as_text, estimate
    from ..settings.resolve import describe

    memory = memory_of(more["fit"]) if more["fit"] is not None else None
    settings, faults = find_faults(values, config)
    if settings is None:
        if more["as_json"]:
            print(json.dumps({"faults": _as_json(faults)}, indent=1, ensure_ascii=False))
        for fault in [] if more["as_json"] else faults:
            print_error(fault)
        raise typer.Exit(1)
    concept = load_concept(settings.concept)
    needs, found = estimate(settings, concept), fits(settings, concept, memory) if memory is not None else None
    if more["as_json"]:
        told = as_json(needs, settings.edit)
        content: dict[str, Any] = {"faults": [], "settings": settings.model_dump(mode="json"), "needs": told}
        content |= {"fits": [fit.as_json() for fit in found]} if found is not None else {}
        print(json.dumps(content, indent=1, ensure_ascii=False))
        return
    print(describe(settings) if found is None else "".join(f"{line}\n" for line in as_lines(found)), end="")
    say(as_text(needs, settings.model, settings.edit))
    if found is None:
        say("no fault found")
    elif found:
        say(f"what fits {more['fit']} GB, least harm first: put a line's words behind the command; time by operations")
    else:
        say("it needs next to nothing: nothing has to be changed")


def _as_json(faults: Sequence[DuoError]) -> list[dict[str, Any]]:
    return [{"problem": fault.problem, "got": fault.got, "hint": fault.hint} for fault in faults]


def _check_folder(folder: Path, *, as_json: bool) -> None:
    from ..arena.check import check_run

    faults, checked = check_run(folder)
    if as_json:
        print(json.dumps({"files": checked, "faults": _as_json(faults)}, indent=1, ensure_ascii=False))
    for fault in [] if as_json else faults:
        print_error(fault)
    if faults:
        raise typer.Exit(1)
    if not as_json:
        say(f"{folder}: no fault found in {checked} files")


def report(
    run: RunFolder,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Counts alone: a page to share.")] = True,
) -> None:
    """Write the page again from what the run folder holds, and its data as JSON.

    duo report runs/sword

    duo report runs/nudity --no-images
    """
    from ..pipeline import report as write

    say(f"report: done → {write(run, images=images)}")


def demo(output: Output = None, seed: Seed = None) -> None:
    """Erase the sword from the mini model and look at the report: minutes on a laptop CPU.

    The same as `duo erase` with a tenth of the pairs, a fifth as many held out, 80 steps, 4 prompts of each set that
    asks for the sword, few of the others, images of 12 steps in place of 20, weights that lie channels last, the
    adapter in them while images are made, and no inverted token: a look, not a measurement.
    `duo erase -o runs/sword` makes and measures all. It is DUO alone: the recipe `robust` exists too (docs/robust.md)
    and is measured on two seeds and two concepts.
    """
    few = {"prompts": 4, "keep_prompts": 8, "neighbour_prompts": 2, "inversion_prompts": 0, "steps": 12}
    flags: dict[str, Any] = {"output": str(output or "runs/demo"), "seed": seed}
    # Twice as many are held out as usual: of so few pairs a tenth would be none.
    flags |= {"pairs.scale": 0.1, "pairs.held_out": 0.2, "train.max_train_steps": 80, "channels_last": True}
    flags["evaluate.fuse_adapters"] = True
    _erase(flag_settings([], flags | {f"evaluate.{k}": v for k, v in few.items()}), None, {})


def drop(
    run: RunFolder,
    names: Annotated[list[str], typer.Argument(help="Pairs, as the contact sheet names them.")],
    reason: Annotated[str | None, typer.Option("--reason", help="Why; stored beside the pair.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="Use the pairs again.")] = False,
) -> None:
    """Leave pairs out of training, or take them back; no file is deleted.

    duo drop runs/sword 0003 0017 --reason "the hand is cut off"
    """
    from ..edits.provenance import edit_names, read_provenance, seen_digest
    from ..erasers.wraps import edit_name, is_round
    from ..pairs.drop import drop as drop_pairs
    from ..runs.folder import Run
    from ..settings.tree import whole_settings

    if undo and reason is not None:
        raise DuoError("a pair that is used again has no reason", got="--undo with --reason", hint="name one of them")
    folder = Run(run)
    known = whole_settings(folder.settings)
    own = edit_name(known["eraser"], known["wrap"])
    pairs = drop_pairs(folder, names, reason, undo=undo)
    say(f"pairs: {sum(pair.keep for pair in pairs)} of {len(pairs)} kept")
    kept = seen_digest(pair.content[:2] for pair in pairs if pair.keep)
    for name in edit_names(folder.edits):
        provenance = read_provenance(folder.edit(name))
        saw = provenance.get("pairs")
        if (saw is None and "eraser" not in provenance) or (saw and seen_digest(saw) == kept):
            continue  # it is of others, who had no pair of this run, or of these pairs
        is_trained = name in (own, known["floor"]) or is_round(name, own)
        again = f"`duo train -o {folder.argument}`" if is_trained else "the command that made it"
        state = folder.checkpoint(name).parent
        first = f"delete {state}, then {again}" if state.is_dir() else again
        say(f"the edit {name} of other pairs is kept; to make it anew from these: {first}")
