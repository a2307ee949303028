"""What a run will need, said before it starts: device memory, time and disk. From file headers and the family's facts.

Nothing is loaded, and nothing is fetched. `duo check` prints the result. Of trainings DUO's is counted, and the time of
an eraser that tells its passes; what is told of another eraser's run is the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..concepts.spec import Concept
from ..erasers.interface import Passes, checked_options
from ..erasers.registry import ERASERS
from ..families.family import ONE_BY_ONE, Family, Size
from ..families.identify import family_of
from ..families.parts import variant_of, weight_files
from ..families.quantize import KINDS
from ..families.registry import FAMILIES
from ..storage.files import read_json
from .tree import Settings

PNG_BYTES: Final = 1.6
"""About how many bytes a pixel of a photograph takes as PNG."""
RATE: Final = 100.0
"""For how many 10¹² operations a second times are given: about one recent data-centre GPU in half precision."""
ENCODED: Final = 4
"""How many of the pairs' images the VAE encodes at once before a training (`erasers.latents`)."""
COUNTED: Final = "duo"
"""The eraser whose training is counted, where nothing wraps it."""


class Needs(NamedTuple):
    """What a run needs, in GB, and in hours at RATE.

    weights: the denoiser's. adapter: the adapter's, with the optimizer's state. activations: what a training pass keeps
    for its way back. training: these three together, and at least all parts while the pairs are encoded. checkpointed:
    the same with gradient checkpointing. sampling: all parts, and the most that a batch of images takes or inverting a
    token. disk: the images, and the adapter of `duo`. training_hours: training. sampling_hours: pairs and evaluation.
    """

    weights: float
    adapter: float
    activations: float
    training: float
    checkpointed: float
    sampling: float
    disk: float
    training_hours: float
    sampling_hours: float


def estimate(settings: Settings, concept: Concept) -> Needs | None:
    """What a run needs, or None for a family that needs nothing to speak of (under 2 GB): the mini model."""
    family = FAMILIES.get(family_of(settings.model))
    if family.size is None:
        return None
    size, train = family.size, settings.train
    width = 4 if train.mixed_precision == "no" else 2
    side = side_of(settings, family) or size.resolution
    denoiser, others = _parameters(settings.model, family) or (size.denoiser, size.others)
    rows = train.train_batch_size * (3 if train.prior_weight else 2)
    # Activations grow with the pixels; attention is fused, so nothing grows with their square.
    scale = (side / size.resolution) ** 2 * width / 2
    adapter = size.adapter[train.adapter_targets == "all-attention"] * train.rank / 32
    state = adapter * 16 / 1e3  # float32: weight, gradient, two moments
    weights = denoiser * (width if settings.quantize == "no" else KINDS[settings.quantize].weight) / 1e3
    whole = weights + others * width / 1e3
    # While the pairs are encoded all parts are on the device; then all but the denoiser leave it.
    loading = whole + scale * size.held[2] * (1 if side > ONE_BY_ONE else ENCODED)
    plain, checkpointed = (weights + state + scale * rows * row for row in size.row)
    return Needs(
        weights=weights,
        adapter=state,
        activations=scale * rows * size.row[train.gradient_checkpointing],
        training=max(checkpointed if train.gradient_checkpointing else plain, loading),
        checkpointed=max(checkpointed, loading),
        sampling=whole + scale * _at_once(settings, family, size, side),
        disk=_disk(settings, concept, _images(settings, concept, family), side, adapter),
        **_hours(settings, concept, family, size, side),
    )


def _at_once(settings: Settings, family: Family, size: Size, side: int) -> float:
    """GB in bf16 at the model's own resolution: the most that a batch of images takes, or inverting a token."""
    counts, (row, decoding, _) = settings.evaluate, size.held
    batch = max(counts.batch, settings.pairs.batch if settings.pairs.folder is None else 0)
    kept = size.row[settings.train.gradient_checkpointing]
    inverting = counts.inversion_batch * kept if inverts(settings, family) else 0.0
    decoded = 1 if side > ONE_BY_ONE else batch
    return max(batch * row * (1 if family.guidance_is_input else 2), decoded * decoding, inverting)


def _hours(settings: Settings, concept: Concept, family: Family, size: Size, side: int) -> dict[str, float]:
    train, counts = settings.train, settings.evaluate
    a_pass = size.flops * (side / size.resolution) ** 2
    passes = 3 + train.gradient_checkpointing
    training = a_pass * _training(settings, concept)
    guided = 1 if family.guidance_is_input else 2
    pairs = _pairs(settings, concept) * (1 + concept.strength)
    made = pairs * settings.pairs.steps if settings.pairs.folder is None else 0.0
    inverted = 2 * counts.inversion_steps * counts.inversion_batch * passes if inverts(settings, family) else 0
    images = 2 * _images(settings, concept, family)
    sampling = a_pass * (guided * (made + images * counts.steps) + inverted)
    return {"training_hours": training / RATE / 3600, "sampling_hours": sampling / RATE / 3600}


def _training(settings: Settings, concept: Concept) -> float:
    """Passes of a row in a training: of the eraser's where it tells them, else of DUO's.

    A way back to an adapter, without gradients of weights, counts as one, and as two where the way there is recomputed.
    """
    train = settings.train
    if (told := _passes(settings.edit)) is not None:
        options: Any = checked_options(ERASERS.get(settings.edit), settings.own)
        found, recomputed = told(options), bool(options.gradient_checkpointing)
        return found.forward + found.back * (1 + recomputed)
    samples = train.max_train_steps * train.gradient_accumulation_steps * train.train_batch_size
    rows = samples * (2 + (1 / train.prior_every if train.prior_weight else 0))
    # Of a bank the reference is asked once a draw, and the policy as ever.
    kept = min(samples, train.reference_bank * _pairs(settings, concept)) * (3 if train.prior_weight else 2)
    return rows * (2 + train.gradient_checkpointing) + (kept if train.reference_bank else rows)


def _passes(edit: str) -> Callable[[Any], Passes] | None:
    """How an edit's eraser tells its passes; None where it does not, and where it is wrapped."""
    return ERASERS.get(edit).passes if edit in ERASERS.names() else None


def _pairs(settings: Settings, concept: Concept) -> float:
    """Pairs that are made, those that are held out too."""
    return sum(kind.count for kind in concept.pairs) * settings.pairs.scale * (1 + settings.pairs.held_out)


def _images(settings: Settings, concept: Concept, family: Family) -> int:
    """Images that an evaluation samples on each of the two models."""
    counts = settings.evaluate
    asked = len(concept.attacks) * counts.prompts
    if inverts(settings, family):  # before each concept's first prompts, and before plain ones
        asked += len(concept.asking) * min(counts.inversion_prompts, counts.prompts)
        asked += counts.inversion_prompts if concept.plain is not None else 0
    asked += counts.caption_prompts if counts.captions is not None else 0
    return asked + counts.keep_prompts + len(concept.neighbours) * counts.neighbour_prompts


def inverts(settings: Settings, family: Family) -> bool:
    """Whether an evaluation inverts a token."""
    return settings.evaluate.inversion_prompts > 0 and family.reads_clip_alone


def _disk(settings: Settings, concept: Concept, images: int, side: int, adapter: float) -> float:
    pixels = 2 * (_pairs(settings, concept) + images) * side * side
    if settings.edit != COUNTED:
        return pixels * PNG_BYTES / 1e9
    # The adapter, a checkpoint of three times its size, and adapters that are kept: the last ones and the best.
    copies = 4 + settings.train.keep_checkpoints + 1
    return pixels * PNG_BYTES / 1e9 + adapter * 4 * copies / 1e3


def side_of(settings: Settings, family: Family) -> int | None:
    """Pixels of an image's side: the settings', or else the model's own, as far as that is known without it.

    A local model's is known by its UNet's configuration, a hub model's by its name's ending.
    """
    if settings.resolution is not None:
        return settings.resolution
    source = settings.model
    path = Path(source) / "unet" / "config.json"
    if path.exists() and isinstance(size := read_json(path).get("sample_size"), int):
        return 8 * size
    return next((side for end, side in family.hub_resolutions.items() if source.lower().endswith(end)), None)


@functools.lru_cache(maxsize=8)
def _parameters(source: str, family: Family) -> tuple[float, float] | None:
    """Millions of parameters of a local model's denoiser and of its other parts, by its files' headers."""
    folder = Path(source)
    if not folder.is_dir():
        return None
    variant = variant_of(folder)
    denoiser, *others = (
        sum((_count(file) for file in weight_files(folder / part, variant)), start=0.0) for part in family.parts
    )
    return denoiser, sum(others)


def _count(file: Path) -> float:
    from math import prod

    from safetensors import safe_open

    with safe_open(file, framework="numpy") as handle:
        shapes = [handle.get_slice(name).get_shape() for name in handle.keys()]  # noqa: SIM118
    return float(sum(prod(shape) for shape in shapes)) / 1e6


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def as_json(needs: Needs | None, eraser: str = COUNTED) -> dict[str, Any] | None:
    """The needs for machines; None in the place of each that is not counted for an eraser."""
    if needs is None:
        return None
    lacking: list[str] = []
    if eraser != COUNTED:
        lacking += ["adapter", "activations", "training", "checkpointed"]
        lacking += ["training_hours"] if _passes(eraser) is None else []
    return {**needs._asdict(), **dict.fromkeys(lacking)}


def as_text(needs: Needs | None, source: str = "", eraser: str = COUNTED) -> str:
    """The needs in a few lines, for `duo check`. source: the model, to say where its size is taken from."""
    if needs is None:
        return "needs: less than 2 GB of memory and of disk"
    known = "" if Path(source).is_dir() else " (sizes of the family's published model)"
    if eraser != COUNTED:
        training, lacking = "", f"memory and time that {eraser} takes to make the edit, and what is searched for it"
        if _passes(eraser) is not None:
            training = f"training {_duration(needs.training_hours)}, "
            lacking = f"memory that {eraser} takes, and time of what lies below it and of attacks between rounds"
        return (
            f"needs{known}: about {needs.sampling:.1f} GB of device memory in sampling and more under attack, "
            f"{needs.disk:.1f} GB of disk for images\n"
            f"time at {RATE:g} TFLOP/s: {training}pairs and evaluation {_duration(needs.sampling_hours)}\n"
            f"not counted: {lacking}"
        )
    lines = (
        f"needs{known}: about {needs.training:.1f} GB of device memory in training (weights {needs.weights:.1f}, "
        f"adapter and optimizer {needs.adapter:.2f}, activations {needs.activations:.1f}), "
        f"{needs.sampling:.1f} GB in sampling and more under attack, {needs.disk:.1f} GB of disk\n"
        f"time at {RATE:g} TFLOP/s: training {_duration(needs.training_hours)}, pairs and evaluation "
        f"{_duration(needs.sampling_hours)}"
    )
    if needs.checkpointed < 0.8 * needs.training:
        lines += f"\nwith --set train.gradient_checkpointing=true: {needs.checkpointed:.1f} GB in training"
    return lines
