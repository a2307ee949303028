"""The training loop, on accelerate: one GPU or a CPU."""

from __future__ import annotations

import contextlib
import functools
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..edits.lora import attach
from ..errors import DuoError, Interrupted
from ..families.interface import Model
from ..families.load import check_precision, lacks_bf16
from ..progress import progress
from ..records import Pair
from ..runs.folder import Run
from .books import Aside, Books
from .checkpoint import identity, load_checkpoint, save_checkpoint
from .duo.loss import DuoLoss, has_prior
from .duo.objective import Terms
from .duo.reference_bank import ReferenceBank
from .duo.settings import TrainSettings
from .latents import Cache
from .optimizer import adamw, rate_factor
from .stopping import diverged, stop_flag

MOST_OVERFLOWS = 20
"""fp16 steps in a row whose gradient overflowed, after which the run stops."""
UNSOUND = "a lower learning_rate, a larger prior_weight, or mixed_precision bf16 instead of fp16"


class Trained(NamedTuple):
    """How a training went. resumed_at: the step it was taken up at (0: from the start)."""

    steps: int
    resumed_at: int
    pairs: int
    seconds: float


def make_accelerator(settings: TrainSettings, device: torch.device, folder: Path) -> Any:
    """An Accelerator for the settings; one that another call set up otherwise in this process is replaced."""
    from accelerate import Accelerator
    from accelerate.tracking import get_available_trackers

    available = [str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()]
    if settings.report_to is not None and settings.report_to not in available:
        got = f"{settings.report_to}; installed here: {', '.join(available) or 'none'}"
        raise DuoError("the tracker is not installed", got=got, hint=f"pip install {settings.report_to}")
    check_precision(settings.mixed_precision, device)
    if settings.mixed_precision == "bf16" and (reason := lacks_bf16(device)) is not None:
        print(f"train: mixed_precision bf16 gains no time here: {reason}", file=sys.stderr, flush=True)
    from accelerate.state import AcceleratorState

    # Accelerate keeps one state a process and refuses a second precision; a library may be called twice.
    if AcceleratorState._shared_state:  # noqa: SLF001
        AcceleratorState._reset_state(True)  # noqa: SLF001
    try:
        return Accelerator(
            mixed_precision=settings.mixed_precision,
            cpu=device.type == "cpu",
            log_with=settings.report_to,
            project_dir=folder,
        )
    except (ValueError, ImportError) as error:
        raise DuoError(
            "cannot set up accelerate", got=str(error)[:200], hint="check mixed_precision and report_to"
        ) from error


def train(
    model: Model,
    cache: Cache,
    pairs: Sequence[Pair],
    run: Run,
    settings: TrainSettings,
    *,
    seed: int,
    name: str,
    aside: Aside | None = None,
    quiet: bool = False,
) -> Trained:
    """Train an adapter on the pairs in `cache`; it is left attached to the model. name: of the edit that it becomes.

    Resumes from the run's checkpoint, and gives on a CPU, bit for bit, the adapter of an uninterrupted run. SIGTERM and
    Ctrl-C save first (Interrupted). A loss that is not finite stops the run and leaves the last good checkpoint.
    """
    checkpoint = run.checkpoint(name)
    accelerator = make_accelerator(settings, model.device, checkpoint.parent)
    optimizer = _attached(model, settings, seed)
    key = identity(settings, pairs, model, seed)
    start = load_checkpoint(checkpoint, model.denoiser, optimizer, key, accelerator.scaler)
    network = accelerator.prepare_model(model.denoiser) if accelerator.num_processes > 1 else model.denoiser
    optimizer = accelerator.prepare_optimizer(optimizer)
    if settings.report_to is not None:
        accelerator.init_trackers("duo", config=settings.model_dump(mode="json"))
    _not_beyond(start, settings.max_train_steps)
    bank = ReferenceBank(model, cache, pairs, run, settings, seed=seed, name=name) if settings.reference_bank else None
    loop = _Loop(DuoLoss(model, cache, settings, seed, bank), network, accelerator, optimizer)
    books = None
    if accelerator.is_main_process:
        state = functools.partial(
            save_checkpoint, checkpoint, model.denoiser, optimizer, key=key, scaler=accelerator.scaler
        )
        books = Books(run, name, settings, start, state, accelerator.trackers, _possible(aside, accelerator, settings))
    begin, overflows = time.monotonic(), 0
    with stop_flag() as stop, progress("train", settings.max_train_steps, done=start, quiet=quiet) as report:
        for step in range(start, settings.max_train_steps):
            line = loop.step(step)
            overflows = 0 if math.isfinite(line["gradient_norm"]) else overflows + 1
            if not is_sound(line, overflows, scaled=accelerator.scaler is not None):
                raise diverged(step + 1, checkpoint, UNSOUND)
            stopping = _any(accelerator, stop.is_set())
            if books is not None:
                books.after(step + 1, line, stopping=stopping)
            if settings.report_to is not None:
                accelerator.log({k: v for k, v in line.items() if k != "step"}, step=step + 1)
            report(step + 1, f"preference {line['preference']:.3f}  accuracy {line['accuracy']:.2f}")
            if stopping:
                raise Interrupted(f"stopped after step {step + 1}; its state is saved", hint="the same command goes on")
    if settings.report_to is not None:
        accelerator.end_training()
    return Trained(settings.max_train_steps, start, len(pairs), time.monotonic() - begin)


def _possible(aside: Aside | None, accelerator: Any, settings: TrainSettings) -> Aside:
    """What can be done aside. A denoiser prepared for several processes in half precision answers in float32.

    The VAE, in half precision, cannot read that, so there are no previews.
    """
    aside = aside or Aside()
    if accelerator.num_processes > 1 and settings.mixed_precision != "no" and aside.previews is not None:
        print("train: no previews with several processes in half precision", file=sys.stderr, flush=True)
        return aside._replace(previews=None)
    return aside


def _attached(model: Model, settings: TrainSettings, seed: int) -> torch.optim.Optimizer:
    """A fresh adapter on the denoiser, and its optimizer."""
    parameters = attach(model, rank=settings.rank, seed=seed, targets=settings.adapter_targets)
    return adamw(parameters, settings.learning_rate, settings.adam_weight_decay)


def _not_beyond(start: int, steps: int) -> None:
    if start > steps:
        hint = f"--max_train_steps {start} or more, or another --output"
        raise DuoError("the checkpoint is further than the steps asked for", got=f"{start}, asked {steps}", hint=hint)


def is_sound(line: dict[str, float], overflows: int, *, scaled: bool) -> bool:
    """Whether training may go on after a step with these figures.

    overflows: steps in a row, this one included, with an infinite gradient. A loss scaler (fp16) skips such a step and
    lowers its scale, so a few are no fault there.
    """
    if not math.isfinite(line["loss"]):
        return False
    return math.isfinite(line["gradient_norm"]) or (scaled and 0 < overflows <= MOST_OVERFLOWS)


class _Loop:
    """One optimizer step: forward and backward of each batch, clipping, update, and the line for metrics.jsonl."""

    def __init__(self, loss: DuoLoss, network: Any, accelerator: Any, optimizer: Any) -> None:
        self.loss, self.network, self.accelerator = loss, network, accelerator
        self.optimizer, self.settings = optimizer, loss.settings
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def step(self, step: int) -> dict[str, float]:
        begin = time.monotonic()
        settings, accelerator = self.settings, self.accelerator
        size, world = settings.train_batch_size, accelerator.num_processes
        found: list[Terms] = []
        for micro in range(settings.gradient_accumulation_steps):
            first = ((step * settings.gradient_accumulation_steps + micro) * world + accelerator.process_index) * size
            last = micro + 1 == settings.gradient_accumulation_steps
            with contextlib.nullcontext() if last else accelerator.no_sync(self.network):
                with accelerator.autocast():
                    terms = self.loss(step, range(first, first + size), self.network if world > 1 else None)
                accelerator.backward(terms.loss / settings.gradient_accumulation_steps)
            found.append(terms)
        rate = settings.learning_rate * rate_factor(step, settings.max_train_steps, settings.lr_scheduler)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        norm = accelerator.clip_grad_norm_(self.parameters, settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        means = _means(found, accelerator, prior=has_prior(settings, step))
        line = {"step": float(step + 1)} | means | {"gradient_norm": float(norm), "lr": rate}
        drawn = size * world * settings.gradient_accumulation_steps
        line["pairs_per_second"] = round(drawn / (time.monotonic() - begin), 3)
        return line | {"step": step + 1}


def _means(found: list[Terms], accelerator: Any, *, prior: bool) -> dict[str, float]:
    """Means over batches and processes, in the units of the objective. prior: whether the step has that term."""
    names = ["loss", "preference", "safe_margin", "unsafe_margin", "accuracy"]
    if prior:
        names.insert(2, "prior")
    values = torch.stack(
        [torch.stack([getattr(terms, name).detach().float().mean() for name in names]) for terms in found]
    )
    means = accelerator.reduce(values.mean(dim=0), reduction="mean").tolist()
    return dict(zip(names, means, strict=True))


def _any(accelerator: Any, flag: bool) -> bool:
    """Whether any process has the flag: a signal may reach one of them first, and all must stop together."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), reduction="sum").item())
