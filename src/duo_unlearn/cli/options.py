"""The options that commands share, and how they become settings of a run."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from ..errors import DuoError

if TYPE_CHECKING:
    from ..session import Session

RunFolder = Annotated[Path, typer.Argument(help="The run folder.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Model = Annotated[
    str | None,
    typer.Option("--model", "--pretrained_model_name_or_path", help="mini, a diffusers folder, or a hub id."),
]
Concept = Annotated[
    list[str] | None,
    typer.Option("--concept", help="A shipped concept, or a concept file. Repeatable: one training of all."),
]
Output = Annotated[Path | None, typer.Option("--output", "--output_dir", "-o", help="The run folder.")]
Seed = Annotated[int | None, typer.Option("--seed", help="The seed of everything random.")]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Erased = Annotated[
    Path | None, typer.Option("--erased", help="A model that others erased: its diffusers folder. --model is its base.")
]
Lora = Annotated[Path | None, typer.Option("--lora", help="An adapter of others: diffusers, PEFT or kohya.")]
Unet = Annotated[Path | None, typer.Option("--unet", help="A denoiser of others: a safetensors state dict.")]
TextEncoder = Annotated[
    Path | None, typer.Option("--text-encoder", help="A text encoder of others: a safetensors state dict.")
]
SystemNames = Annotated[
    list[str] | None,
    typer.Option("--system", help="A system, e.g. original, duo, uce+duo, duo+negative-prompt. Repeatable."),
]
GuardNames = Annotated[
    list[str] | None, typer.Option("--guard", help="A guard of the system, one of `duo guards`. Repeatable.")
]

Step = Annotated[
    str | None,
    typer.Option("--step", help="The adapter of one step of the training, a number, or best: on the held-out pairs."),
]

Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        help="Processes that share the work: a number, auto (one a GPU, else a core, 8 at most), ray, a Ray address.",
    ),
]
Fit = Annotated[
    str | None, typer.Option("--fit", metavar="GB", help="GB of one device: what can be set so that the run fits.")
]

_FILE: Final = Annotated[
    Path | None, typer.Argument(metavar="[RUN.yaml]", help="Settings file, or a run folder; flags come on top.")
]
_ASSIGN: Final = Annotated[
    list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. --set train.beta=250. Repeatable.")
]
FLAGS: Final[dict[str, tuple[str, Any]]] = {
    "model": ("model", Model),
    "concept": ("concept", Concept),
    "output": ("output", Output),
    "seed": ("seed", Seed),
    "device": ("device", Device),
    "eraser": (
        "eraser",
        Annotated[str | None, typer.Option("--eraser", help="What makes the edit, one of `duo erasers`.")],
    ),
    "wrap": (
        "wrap",
        Annotated[str | None, typer.Option("--wrap", help="A wrap of the eraser's training, one of `duo wraps`.")],
    ),
    "floor": (
        "floor",
        Annotated[str | None, typer.Option("--floor", help="An eraser whose edit lies below the eraser's, e.g. uce.")],
    ),
    "guard": ("guard", GuardNames),
    "detector": (
        "detector",
        Annotated[str | None, typer.Option("--detector", help="Which of the concept's detectors the run asks.")],
    ),
    "pairs": (
        "pairs.folder",
        Annotated[Path | None, typer.Option("--pairs", help="Your own pairs: unsafe/ and safe/, or a manifest.")],
    ),
    "trust_pairs": (
        "pairs.trust",
        Annotated[
            bool | None,
            typer.Option("--trust-pairs", help="Take your own pairs also when their sides look swapped."),
        ],
    ),
    "beta": (
        "train.beta",
        Annotated[float | None, typer.Option("--beta", "--beta_dpo", help="β; smaller forgets more.")],
    ),
    "prior_weight": (
        "train.prior_weight",
        Annotated[
            float | None, typer.Option("--prior_weight", "--prior-weight", help="λ, the weight of the prior term.")
        ],
    ),
    "learning_rate": (
        "train.learning_rate",
        Annotated[float | None, typer.Option("--learning_rate", "--learning-rate", help="The learning rate of AdamW.")],
    ),
    "lr_scheduler": (
        "train.lr_scheduler",
        Annotated[str | None, typer.Option("--lr_scheduler", "--lr-scheduler", help="constant, linear, cosine.")],
    ),
    "max_train_steps": (
        "train.max_train_steps",
        Annotated[int | None, typer.Option("--max_train_steps", "--max-train-steps", help="How many steps to train.")],
    ),
    "train_batch_size": (
        "train.train_batch_size",
        Annotated[int | None, typer.Option("--train_batch_size", "--train-batch-size", help="How many pairs a step.")],
    ),
    "gradient_accumulation_steps": (
        "train.gradient_accumulation_steps",
        Annotated[
            int | None,
            typer.Option(
                "--gradient_accumulation_steps", "--gradient-accumulation-steps", help="How many batches a step."
            ),
        ],
    ),
    "rank": ("train.rank", Annotated[int | None, typer.Option("--rank", help="LoRA rank (and alpha).")]),
    "mixed_precision": (
        "train.mixed_precision",
        Annotated[str | None, typer.Option("--mixed_precision", "--mixed-precision", help="no, fp16 or bf16.")],
    ),
    "checkpointing_steps": (
        "train.checkpointing_steps",
        Annotated[
            int | None,
            typer.Option("--checkpointing_steps", "--checkpointing-steps", help="How many steps between checkpoints."),
        ],
    ),
    "report_to": (
        "train.report_to",
        Annotated[str | None, typer.Option("--report_to", "--report-to", help="A tracker: tensorboard, wandb, ...")],
    ),
}
"""A parameter's name → the key of the setting, and the option."""
Act = Callable[[dict[str, Any], Path | None, dict[str, Any]], None]
"""Called with the settings that were given, the settings file, and the command's further options."""


def say(line: str) -> None:
    """Print a line for people, on standard error."""
    print(line, file=sys.stderr, flush=True)


def settings_command(app: typer.Typer, name: str, text: str, act: Act, more: Mapping[str, Any] | None = None) -> None:
    """Register a command that takes the settings of a run. more: further options, parameter → annotated type."""
    options = {"config": _FILE, "assign": _ASSIGN, **{flag: kind for flag, (_, kind) in FLAGS.items()}, **(more or {})}

    def command(**values: Any) -> None:
        flags = {key: _plain(values[flag]) for flag, (key, _) in FLAGS.items()}
        flags["concept"] = joined_concept(values["concept"])
        config = values["config"]
        if config is not None and (config / "settings.yaml").is_file() and name != "check":
            as_new = f"{name} {config / 'settings.yaml'} -o {flags['output']}, for a new run with the same settings"
            flags["output"], config = str(one_folder(config, flags["output"], as_new)), None  # it has its settings
        act(flag_settings(values["assign"], flags), config, {option: values[option] for option in more or {}})

    parameters = [
        inspect.Parameter(option, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for option, kind in options.items()
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    # Bare, it would start an hour of work that nobody described; `duo check` tells the defaults.
    app.command(name, help=text, no_args_is_help=name != "check")(command)


def one_folder(named: Path | None, output: str | Path | None, hint: str | None = None) -> Path | None:
    """The run folder that an argument or -o names; two of them are a DuoError. hint: what to do, beside naming one."""
    if named is None or output is None or named.resolve() == Path(output).resolve():
        return named if output is None else Path(output)
    hint = "name one" + (f"; or duo {hint}" if hint else "")
    raise DuoError("two run folders are named", got=f"{named} and -o {output}", hint=hint)


def joined_concept(names: list[str] | None) -> str | None:
    """The setting `concept` of some concepts' names; None where none was given."""
    return "+".join(names) if names else None


def flag_settings(assign: list[str] | None, flags: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that were given, nested: assignments, and flags on top. Flags that are None were not given."""
    from ..settings.tree import merge, nest, parse_assignments

    return merge(parse_assignments(assign or []), nest({k: v for k, v in flags.items() if v is not None}))


def _plain(value: Any) -> Any:
    """A flag's value as a settings file would hold it; an empty list was not given."""
    if isinstance(value, Path):
        return str(value)
    return value if value not in ([], ()) else None


def opened(values: Mapping[str, Any], config: Path | None) -> Session:
    """The run of given settings. One line says where they come from and where they are kept."""
    from ..runs.folder import Run
    from ..settings.resolve import check_read, resolve_settings, summary

    settings = resolve_settings(values, config)
    check_read(values, settings, config)
    say(f"{summary(settings)}; all settings → {Run(settings.output).settings}, or `duo check`")
    from ..session import Session

    return Session(settings)


def step_number(text: str) -> int | None:
    """What --step says: a step, or None for the best one."""
    if text == "best":
        return None
    if not text.isdecimal():
        raise DuoError("--step is a step of the training", got=text[:40], hint="a number, or best")
    return int(text)


def system_names(
    run: Session,
    systems: list[str] | None,
    guards: list[str] | None,
    sources: Mapping[str, Path | None],
) -> list[str] | None:
    """The names of the systems that a command is about; None for those of the run's settings.

    sources: where an edit of others lies. It is taken over first, under the name of --system or of its file.
    """
    from ..erasers.wraps import whole_name

    names = list(systems or [])
    if any(sources.values()):
        from ..pipeline import add_edit

        if len(names) > 1:
            raise DuoError("an edit of others has one name", got=", ".join(names), hint="one --system NAME")
        source = next(source for source in sources.values() if source is not None)
        name = names[0] if names else source.resolve().stem.replace("+", "-")
        names = [add_edit(run, name, **sources)]
    if guards:
        own = whole_name(run.settings.edit, run.settings.floor)
        names = behind(names or [own], guards)
    return names or None


def behind(names: Sequence[str], guards: Sequence[str]) -> list[str]:
    """The names of systems behind guards."""
    return ["+".join([name, *guards]) for name in names]
