"""What a run will need, told before it starts: device memory and disk. From file headers and a table, offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from ..concepts.spec import Concept
from ..families.identify import READS_CLIP_ALONE, family_of, variant_of, weight_files
from ..storage.files import read_json
from .tree import Settings


class Size(NamedTuple):
    """Of a family's published model: parameters (millions) of its parts and of an adapter of rank 32.

    row: GB that one row of a bf16 training pass keeps at `resolution`, plainly and with gradient checkpointing, from
    `families.activations`. flops: 10¹² operations of a row's pass forward there.
    """

    denoiser: float
    others: float
    adapter: float
    resolution: int
    row: tuple[float, float]
    flops: float


SIZES: Final = {
    "sd1": Size(859.5, 207, 3.19, 512, (0.95, 0.149), 0.80),
    "sd2": Size(865.9, 424, 3.19, 768, (2.03, 0.238), 2.15),
    "sdxl": Size(2567.5, 902, 21.3, 1024, (6.88, 0.488), 6.76),
    "sd3": Size(2028.3, 5664, 9.44, 1024, (5.73, 0.339), 8.90),
    "flux": Size(11901.4, 4969, 14.94, 1024, (24.24, 1.551), 69.5),
}
PNG_BYTES: Final = 1.6
"""Bytes a pixel of a photograph as PNG, about."""


RATE: Final = 100.0
"""10¹² operations a second that times are told for: about what half precision gives on one recent data-centre GPU."""


class Needs(NamedTuple):
    """GB, and hours at RATE.

    training: weights, adapter and optimizer, kept activations, and at least all parts' weights, which are loaded
    together; checkpointed: the same with gradient checkpointing. sampling: all parts, and what inverting a token keeps.
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
    """What a run needs, or None for the mini model, which needs nothing to speak of (under 2 GB)."""
    family = family_of(settings.model)
    if family not in SIZES:
        return None
    size, train = SIZES[family], settings.train
    width = 4 if train.mixed_precision == "no" else 2
    side = settings.resolution or _own_side(settings.model) or size.resolution
    denoiser, others = _parameters(settings.model) or (size.denoiser, size.others)
    loading = (denoiser + others) * width / 1e3  # all parts are on the device before the text encoders leave it
    rows = train.train_batch_size * (3 if train.prior_weight else 2)
    # Activations grow with the pixels; attention is fused, so nothing grows with their square.
    scale = rows * (side / size.resolution) ** 2 * width / 2
    inverting = settings.evaluate.inversion_batch * scale / rows * size.row[train.gradient_checkpointing]
    adapter = size.adapter * train.rank / 32 * (2 if train.adapter_targets == "all-attention" else 1)
    state = adapter * 16 / 1e3  # float32: weight, gradient, two moments
    weights = denoiser * (1 if settings.quantize == "int8" else width) / 1e3
    plain, checkpointed = (weights + state + scale * row for row in size.row)
    return Needs(
        weights=weights,
        adapter=state,
        activations=scale * size.row[train.gradient_checkpointing],
        training=max(checkpointed if train.gradient_checkpointing else plain, loading),
        checkpointed=max(checkpointed, loading),
        sampling=weights + others * width / 1e3 + (inverting if _inverts(settings) else 0.0),
        disk=_disk(settings, concept, side, adapter),
        **_hours(settings, concept, family, rows, side),
    )


def _hours(settings: Settings, concept: Concept, family: str, rows: int, side: int) -> dict[str, float]:
    size, train, counts = SIZES[family], settings.train, settings.evaluate
    a_pass = size.flops * (side / size.resolution) ** 2
    # Reference and policy forward, and back to the adapter without gradients of weights; once more when recomputed.
    passes = 3 + train.gradient_checkpointing
    training = train.max_train_steps * train.gradient_accumulation_steps * rows * passes * a_pass
    guided = 1 if family == "flux" else 2
    pairs = sum(kind.count for kind in concept.pairs) * settings.pairs.scale * (1 + concept.strength)
    made = pairs * settings.pairs.steps if settings.pairs.folder is None else 0.0
    inverted = 2 * counts.inversion_steps * counts.inversion_batch * passes if _inverts(settings) else 0
    sampling = a_pass * (guided * (made + 2 * _images(settings, concept) * counts.steps) + inverted)
    return {"training_hours": training / RATE / 3600, "sampling_hours": sampling / RATE / 3600}


def _images(settings: Settings, concept: Concept) -> int:
    """Images that an evaluation samples on each of the two models."""
    counts = settings.evaluate
    inverted = 2 * counts.inversion_prompts if _inverts(settings) else 0
    asked = len(concept.attacks) * counts.prompts + inverted
    return asked + counts.keep_prompts + len(concept.neighbours) * counts.neighbour_prompts


def _inverts(settings: Settings) -> bool:
    return settings.evaluate.inversion_prompts > 0 and family_of(settings.model) in READS_CLIP_ALONE


def _disk(settings: Settings, concept: Concept, side: int, adapter: float) -> float:
    pairs = 2 * sum(kind.count for kind in concept.pairs) * settings.pairs.scale
    images = (pairs + 2 * _images(settings, concept)) * side * side * PNG_BYTES
    return images / 1e9 + adapter * 4 * 4 / 1e3  # the adapter, and a checkpoint of three times its size


def _own_side(source: str) -> int | None:
    """Pixels of a side of a local model's images, by its UNet's configuration; of the 512 px SD 2 by its name."""
    path = Path(source) / "unet" / "config.json"
    if path.exists() and isinstance(size := read_json(path).get("sample_size"), int):
        return 8 * size
    return 512 if "stable-diffusion-2" in source.lower() and source.lower().endswith("base") else None


def _parameters(source: str) -> tuple[float, float] | None:
    """Millions of parameters of a local model's denoiser and of its other parts, by its files' headers."""
    folder = Path(source)
    if not folder.is_dir():
        return None
    variant = variant_of(folder)
    counted: Mapping[str, float] = {
        part.name: sum(_count(file) for file in weight_files(part, variant))
        for part in folder.iterdir()
        if part.is_dir()
    }
    denoiser = counted.get("unet", 0) + counted.get("transformer", 0)
    return denoiser, sum(counted.get(name, 0) for name in ("vae", "text_encoder", "text_encoder_2", "text_encoder_3"))


def _count(file: Path) -> float:
    from math import prod

    from safetensors import safe_open

    with safe_open(file, framework="numpy") as handle:
        shapes = [handle.get_slice(name).get_shape() for name in handle.keys()]  # noqa: SIM118
    return float(sum(prod(shape) for shape in shapes)) / 1e6


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"


def told(needs: Needs | None, source: str = "") -> str:
    """The needs in a few lines. source: the model, to say where its size is taken from."""
    if needs is None:
        return "needs: less than 2 GB of memory and of disk"
    known = "" if Path(source).is_dir() else " (sizes of the family's published model)"
    lines = (
        f"needs{known}: about {needs.training:.1f} GB of device memory in training (weights {needs.weights:.1f}, "
        f"adapter and optimizer {needs.adapter:.2f}, activations {needs.activations:.1f}), "
        f"{needs.sampling:.1f} GB and more in evaluation, {needs.disk:.1f} GB of disk\n"
        f"time at {RATE:g} TFLOP/s: training {_duration(needs.training_hours)}, pairs and evaluation "
        f"{_duration(needs.sampling_hours)}"
    )
    if needs.checkpointed < 0.8 * needs.training:
        lines += f"\nwith --set train.gradient_checkpointing=true: {needs.checkpointed:.1f} GB in training"
    return lines
