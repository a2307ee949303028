"""DUO: direct unlearning optimization (NeurIPS 2024). It trains a LoRA on the run's pairs."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..course import Course
from ..interface import Eraser, EraserContext, Reads, State
from .settings import TrainSettings

if TYPE_CHECKING:
    from torch import Tensor

    from ...families.family import Family
    from ...records import Pair
    from ..latents import Cache
    from .loss import DuoLoss


def preference_eraser(name: str, title: str, settings: type[TrainSettings], reads: Reads, cache: str) -> Eraser:
    """An eraser that is DUO's training with settings of its own. cache: the file of what it reads, a name."""
    return Eraser(
        name,
        title,
        settings,
        reads,
        _why_not,
        functools.partial(_erase, file=cache),
        trains=True,
        course=functools.partial(_course, name=name, file=cache),
        makes="lora",
        watches=True,
        for_wordless=_for_wordless,
    )


def _for_wordless(options: TrainSettings, pairs: Sequence[Pair]) -> dict[str, str]:
    """Captions are those of every pair."""
    whole = all(pair.has_prompts for pair in pairs)
    return {} if whole or options.captions == "none" else {"captions": "none"}


def _why_not(_family: Family) -> str | None:
    return None


def _cache(context: EraserContext, file: str) -> Cache:
    from ..latents import build_cache

    run, captions = context.run, context.options.captions
    return build_cache(context.model, context.pairs, run.pairs, run.moments.with_name(file), captions=captions)


def _erase(context: EraserContext, name: str, file: str) -> State:
    """Train the adapter from the run's checkpoint or anew, and save it with its provenance."""
    from accelerate import PartialState

    from ...edits.files import save_adapter
    from ...edits.lora import detach
    from ...edits.provenance import WEIGHTS, edit_hash, read_provenance
    from ...runs.machine import is_first_process
    from ..books import Aside
    from ..checkpoint import SHOWN, identity
    from ..previews import Previews
    from ..trainer import train
    from .course import compiled, save_memory
    from .held_out import held_out_of

    model, run, settings, pairs = context.model, context.run, context.options, list(context.pairs)
    key = identity(settings, pairs, model, context.seed)
    folder = run.edit(name)
    known = read_provenance(folder)
    if (folder / WEIGHTS).exists() and (known.get("key"), known.get("steps")) == (key, settings.max_train_steps):
        edit_hash(folder)
        return "already done"
    # Of several processes the first one encodes, and the others read what it wrote.
    watch = context.watch
    with PartialState(cpu=model.device.type == "cpu").main_process_first():
        cache = _cache(context, file)
        held_out = held_out_of(model, watch, settings, run.moments.with_name(f"held-out-{file}"))
    save_memory(model, settings)
    previews = Previews(model, watch, run.previews(name), settings.preview_steps) if watch is not None else None

    def save(folder: Path, step: int) -> None:
        described = {
            "steps": step,
            "passes": passes_of(settings, step, len(pairs)),
            "settings": settings.model_dump(mode="json", exclude=set(SHOWN)),
            "pairs": [[pair.unsafe_sha256, pair.safe_sha256] for pair in pairs],
            "key": key,
        }
        save_adapter(model, folder, {**context.provenance, **described})

    with model.denoiser_alone(), compiled(model, settings):
        trained = train(
            model,
            cache,
            pairs,
            run,
            settings,
            seed=context.seed,
            name=name,
            aside=Aside(save, held_out, previews),
            quiet=context.quiet,
        )
    if is_first_process():
        save(folder, trained.steps)
    detach(model)
    return "done"


def passes_of(settings: TrainSettings, steps: int, pairs: int) -> int:
    """The rows that steps send through the denoiser on each process, the policy's and the reference's."""
    from ...runs.machine import world_size

    samples = settings.train_batch_size * settings.gradient_accumulation_steps
    with_prior = steps // settings.prior_every if settings.prior_weight else 0
    policy = samples * (2 * steps + with_prior)
    if not settings.reference_bank:
        return 2 * policy
    rounds = min(settings.reference_bank, math.ceil(samples * world_size() * steps / pairs))
    return policy + rounds * pairs * (3 if settings.prior_weight else 2)


@contextlib.contextmanager
def _course(context: EraserContext, name: str, file: str) -> Iterator[Course]:
    """The same training as a course, for wraps: on one process, all batches of a step held at once."""
    from ...errors import DuoError
    from .course import adapter_course
    from .loss import DuoLoss
    from .reference_bank import ReferenceBank

    model, settings, seed = context.model, context.options, context.seed
    if settings.mixed_precision == "fp16":
        hint = "mixed_precision bf16 or no"
        raise DuoError("an eraser that is wrapped is trained without the loss scaling that fp16 needs", hint=hint)
    cache, bank = _cache(context, file), None
    if settings.reference_bank:
        bank = ReferenceBank(model, cache, context.pairs, context.run, settings, seed=seed, name=name)
    with adapter_course(context, functools.partial(_mean, DuoLoss(model, cache, settings, seed, bank))) as course:
        yield course


def _mean(loss: DuoLoss, step: int) -> Tensor:
    """The mean loss of a step's batches, a scalar."""
    import torch

    from .course import autocast

    settings = loss.settings
    size, count = settings.train_batch_size, settings.gradient_accumulation_steps
    firsts = range(step * count * size, (step + 1) * count * size, size)
    with autocast(loss.model, settings):
        losses = [loss(step, range(first, first + size)).loss for first in firsts]
    return torch.stack(losses).mean()


DUO: Final = preference_eraser(
    "duo", "DUO: direct unlearning optimization", TrainSettings, "images", "moments.safetensors"
)
