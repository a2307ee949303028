"""The command line: one function a command; each loads settings, calls the pipeline and prints."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DuoError, Interrupted
from .tables import estimates_table, print_error

if TYPE_CHECKING:
    from ..session import Session
    from ..settings.tree import Settings

app = typer.Typer(
    name="duo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Erase a concept from a text-to-image model, and measure that it is gone.",
    epilog="Start with: [bold]duo demo[/bold]",
)

File = Annotated[Path | None, typer.Argument(metavar="[RUN.yaml]", help="Settings file; flags come on top.")]
Assign = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. --set train.beta=250. Repeatable.")]
ModelName = Annotated[
    str | None,
    typer.Option("--model", "--pretrained_model_name_or_path", help="mini, a diffusers folder, or a hub id."),
]
Concept = Annotated[str | None, typer.Option("--concept", help="A shipped concept, or a concept file.")]
Output = Annotated[Path | None, typer.Option("--output", "--output_dir", "-o", help="Run folder.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Of everything random.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Pairs = Annotated[Path | None, typer.Option("--pairs", help="Your own pairs: unsafe/ and safe/, or a manifest.")]
Beta = Annotated[float | None, typer.Option("--beta", "--beta_dpo", help="β; smaller forgets more.")]
Prior = Annotated[float | None, typer.Option("--prior_weight", "--prior-weight", help="λ of the prior term.")]
Rate = Annotated[float | None, typer.Option("--learning_rate", "--learning-rate", help="Of AdamW.")]
Decay = Annotated[str | None, typer.Option("--lr_scheduler", "--lr-scheduler", help="constant, linear, cosine.")]
Steps = Annotated[int | None, typer.Option("--max_train_steps", "--max-train-steps", help="Optimizer steps.")]
Batch = Annotated[int | None, typer.Option("--train_batch_size", "--train-batch-size", help="Pairs a step.")]
Accumulate = Annotated[
    int | None, typer.Option("--gradient_accumulation_steps", "--gradient-accumulation-steps", help="Batches a step.")
]
Rank = Annotated[int | None, typer.Option("--rank", help="LoRA rank (and alpha).")]
Precision = Annotated[str | None, typer.Option("--mixed_precision", "--mixed-precision", help="no, fp16 or bf16.")]
Every = Annotated[int | None, typer.Option("--checkpointing_steps", "--checkpointing-steps", help="Steps between.")]
Tracker = Annotated[str | None, typer.Option("--report_to", "--report-to", help="tensorboard, wandb, ...")]
RunFolder = Annotated[Path, typer.Argument(help="The run folder.")]


def _given(assign: list[str] | None, flags: dict[str, Any]) -> dict[str, Any]:
    from ..settings.tree import merged, nested, parse_assignments

    return merged(parse_assignments(assign or []), nested({k: v for k, v in flags.items() if v is not None}))


def _stage(name: str, text: str, act: Callable[[dict[str, Any], Path | None], None]) -> None:
    """Register a command that takes the settings of a run."""

    @app.command(name, help=text)
    def command(
        config: File = None,
        assign: Assign = None,
        model: ModelName = None,
        concept: Concept = None,
        output: Output = None,
        seed: Seed = None,
        device: Device = None,
        pairs: Pairs = None,
        beta: Beta = None,
        prior_weight: Prior = None,
        learning_rate: Rate = None,
        lr_scheduler: Decay = None,
        max_train_steps: Steps = None,
        train_batch_size: Batch = None,
        gradient_accumulation_steps: Accumulate = None,
        rank: Rank = None,
        mixed_precision: Precision = None,
        checkpointing_steps: Every = None,
        report_to: Tracker = None,
    ) -> None:
        flags: dict[str, Any] = {
            "model": model,
            "concept": concept,
            "output": str(output) if output else None,
            "seed": seed,
            "device": device,
            "pairs.folder": str(pairs) if pairs else None,
            "train.beta": beta,
            "train.prior_weight": prior_weight,
            "train.learning_rate": learning_rate,
            "train.lr_scheduler": lr_scheduler,
            "train.max_train_steps": max_train_steps,
            "train.train_batch_size": train_batch_size,
            "train.gradient_accumulation_steps": gradient_accumulation_steps,
            "train.rank": rank,
            "train.mixed_precision": mixed_precision,
            "train.checkpointing_steps": checkpointing_steps,
            "train.report_to": report_to,
        }
        act(_given(assign, flags), config)


def _session(given: dict[str, Any], config: Path | None) -> Session:
    from ..settings.resolve import describe, resolve_settings

    settings: Settings = resolve_settings(given, config)
    print(describe(settings), file=sys.stderr)
    from ..session import Session

    return Session(settings)


def _erase(given: dict[str, Any], config: Path | None) -> None:
    session = _session(given, config)
    from ..pipeline import erase

    estimates_table(erase(session, _say))


def _pairs(given: dict[str, Any], config: Path | None) -> None:
    session = _session(given, config)
    from ..pipeline import make_pairs

    with session.run.lock():
        pairs, state = make_pairs(session)
    _say(f"pairs: {state}, {sum(p.keep for p in pairs)} of {len(pairs)} kept → {session.run.pairs}")


def _train(given: dict[str, Any], config: Path | None) -> None:
    session = _session(given, config)
    from ..pipeline import train

    with session.run.lock():
        state = train(session)
    _say(f"train: {state} → {session.run.adapter_weights}")


def _evaluate(given: dict[str, Any], config: Path | None) -> None:
    session = _session(given, config)
    from ..arena.evaluation import evaluate

    with session.run.lock(shared=True):
        estimates, state = evaluate(session)
    _say(f"evaluate: {state} → {session.run.results}")
    estimates_table(estimates)


def _check(given: dict[str, Any], config: Path | None) -> None:
    from ..concepts.store import load_concept
    from ..settings.needs import estimate, told
    from ..settings.resolve import describe, find_faults

    settings, found = find_faults(given, config)
    for error in found:
        print_error(error)
    if settings is None:
        raise typer.Exit(1)
    print(describe(settings), end="")
    _say(told(estimate(settings, load_concept(settings.concept)), settings.model))
    _say("no fault found")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


_stage(
    "erase",
    "Erase a concept: pairs, training, evaluation, report. The same command resumes.\n\n"
    "duo erase --model mini --concept sword -o runs/sword\n\n"
    "duo erase --model ./stable-diffusion-v1-5 --concept my-concept.yaml -o runs/sd15 --mixed_precision fp16\n\n"
    "duo erase run.yaml --pairs my-pairs/ -o runs/mine --set train.beta=250",
    _erase,
)
_stage("pairs", "Make the pairs, or import yours.\n\nduo pairs --concept sword -o runs/sword", _pairs)
_stage("train", "Train the adapter on the run's pairs.\n\nduo train -o runs/sword --max_train_steps 400", _train)
_stage(
    "evaluate",
    "Measure the run's adapter beside the original.\n\n"
    "duo evaluate -o runs/sword\n\n"
    "Started again beside itself, on another GPU say, it shares the work:\n\n"
    "CUDA_VISIBLE_DEVICES=1 duo evaluate -o runs/sword",
    _evaluate,
)
_stage("check", "Find every fault of a run before it starts, offline.\n\nduo check run.yaml", _check)


@app.command()
def report(
    run: RunFolder,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Counts alone: a page to share.")] = True,
) -> None:
    """Write the page again from what the run folder holds, and its data as JSON.

    duo report runs/sword

    duo report runs/nudity --no-images
    """
    from ..pipeline import report as write
    from ..runs.folder import Run

    _say(f"report: done → {write(Run(run), images=images)}")


@app.command()
def sample(
    prompts: Annotated[list[str], typer.Argument(help="Prompts.")],
    model: ModelName = None,
    adapter: Annotated[Path | None, typer.Option("--adapter", help="A run folder, adapter folder or file.")] = None,
    strength: Annotated[float, typer.Option("--strength", help="Of the adapter; 0 is the base exactly.")] = 1.0,
    compare: Annotated[bool, typer.Option("--compare", help="The base above, the adapter below.")] = False,
    count: Annotated[int, typer.Option("--count", min=1, help="Images a prompt.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    steps: Annotated[int, typer.Option("--steps", min=2)] = 25,
    guidance: Annotated[float, typer.Option("--guidance", min=0)] = 5.0,
    device: Device = "auto",
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG: a row a prompt.")] = Path("sample.png"),
) -> None:
    """Sample a model, with or without an adapter.

    duo sample "an armed blue knight in the snow" --adapter runs/sword --compare -o knight.png
    """
    if empty := [prompt for prompt in prompts if not prompt.strip()]:
        raise DuoError("a prompt is empty", got=repr(empty[0]), hint='duo sample "a red knight with a flower"')
    from ..arena.samples import sample_grid

    sample_grid(
        prompts, output, model=model, adapter=adapter, strength=strength, compare=compare, count=count,
        seed=seed, steps=steps, guidance=guidance, device=device or "auto",
    )  # fmt: skip
    _say(f"{len(prompts) * count} images → {output}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Run folder.")] = Path("runs/demo"),
    seed: Seed = None,
) -> None:
    """Erase the sword from the mini model and look at the report: minutes on a laptop CPU.

    The same as `duo erase` with half of the pairs, 50 prompts of each set that asks for the sword, fewer of the others,
    and no inverted token. `duo erase -o runs/sword` makes and measures all.
    """
    counts = {"prompts": 50, "keep_prompts": 40, "neighbour_prompts": 16, "inversion_prompts": 0}
    flags = {"output": str(output), "seed": seed, "pairs.scale": 0.5}
    _erase(_given([], flags | {f"evaluate.{k}": v for k, v in counts.items()}), None)


def main() -> None:
    """Run the command line: errors in at most three lines, exit code 1 (2 for usage, 130 when interrupted)."""
    from ..runs.machine import keep_freed_memory
    from .concepts import concepts
    from .mini import mini

    keep_freed_memory()
    # Advice to programmers (a faster image processor, say) is no news to someone who types a command.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    from .adapter import compose, export
    from .arena import attack, attacks, compare, measure, sweep
    from .lists import models
    from .pairs import drop

    app.command()(attack)
    app.command()(measure)
    app.command()(attacks)
    app.command()(sweep)
    app.command()(compare)
    app.command()(drop)
    app.command()(models)
    app.command()(compose)
    app.command()(export)
    app.add_typer(concepts, name="concepts")
    app.add_typer(mini, name="mini")
    try:
        app()
    except Interrupted as error:
        print_error(error)
        sys.exit(130)
    except DuoError as error:
        print_error(error)
        sys.exit(1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's; torch itself is not imported here
            raise
        hint = "smaller train_batch_size, pairs.batch, evaluate.batch; --mixed_precision bf16 (export: --precision)"
        print_error(DuoError("the device has too little memory", got=str(error).split(". ")[0], hint=hint))
        sys.exit(1)
    except SystemExit as stop:
        if stop.code == 130:  # how Typer ends on Ctrl-C
            _say("stopped; the same command goes on from what was saved")
        raise
