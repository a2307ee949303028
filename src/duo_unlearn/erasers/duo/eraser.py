"""DUO: direct unlearning optimization (NeurIPS 2024). It trains a LoRA on the run's pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..interface import Eraser, EraserContext, State
from .settings import TrainSettings

if TYPE_CHECKING:
    from ...families.family import Family


def _why_not(_family: Family) -> str | None:
    return None


def _erase(context: EraserContext, name: str) -> State:
    """Train the adapter from the run's checkpoint or anew, and save it with its provenance."""
    from accelerate import PartialState

    from ...edits.files import save_adapter
    from ...edits.lora import detach
    from ...edits.provenance import WEIGHTS, edit_hash, read_provenance
    from ...runs.machine import is_first_process
    from ..checkpoint import identity
    from ..latents import build_cache
    from ..trainer import train

    model, run, settings, pairs = context.model, context.run, context.options, list(context.pairs)
    key = identity(settings, pairs, model, context.seed)
    folder = run.edit(name)
    known = read_provenance(folder)
    if (folder / WEIGHTS).exists() and (known.get("key"), known.get("steps")) == (key, settings.max_train_steps):
        edit_hash(folder)
        return "already done"
    # Of several processes the first one encodes, and the others read what it wrote.
    with PartialState(cpu=model.device.type == "cpu").main_process_first():
        cache = build_cache(model, pairs, run.pairs, run.moments, captions=settings.captions)
    with model.denoiser_alone():
        trained = train(model, cache, pairs, run, settings, seed=context.seed, name=name, quiet=context.quiet)
    if is_first_process():
        described = {
            "steps": trained.steps,
            "settings": settings.model_dump(mode="json"),
            "pairs": [[pair.unsafe_sha256, pair.safe_sha256] for pair in pairs],
            "key": key,
        }
        save_adapter(model, folder, {**context.provenance, **described})
    detach(model)
    return "done"


DUO: Final = Eraser(
    "duo", "DUO: direct unlearning optimization", TrainSettings, "images", _why_not, _erase, trains=True
)
