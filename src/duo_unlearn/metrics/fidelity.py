"""What a prompt set's images keep beside the original's: preservation pair by pair, FID, KID, CMMD, CLIP score."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from ..errors import DuoError
from ..interval import mean_interval
from ..records import Estimate, ModelName
from .clip import clip_for, clip_score, why_no_clip
from .distribution import LEAST, Distance, cmmd, fid, kid
from .estimate import preserved
from .features import BATCH, ClipFeatures, Features, feature_batches, features_for, preservation

Measured = tuple[list[Estimate], list[dict[str, str]]]
"""Estimates, and what there is none of with the reason (metric, prompts, reason)."""
PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp")


def fidelity(
    family: str,
    prompts: str,
    texts: Sequence[str],
    files: Mapping[ModelName, Sequence[Path]],
    reference: Path | None = None,
) -> Measured:
    """Estimates of a prompt set. files: a model's images, in the order of the texts.

    reference: a folder of images that both models' distributions are measured from; without one it is the original
    model's images, under the same prompts and noise.
    """
    features = features_for(family)
    found = preserved(prompts, preservation(features, files["original"], files["erased"]), features.name)
    absent: list[dict[str, str]] = []
    distances: list[tuple[str, Features, Callable[..., Distance | None]]] = [
        ("fid", features, fid),
        ("kid", features, functools.partial(kid, paired=reference is None)),
    ]
    if (reason := why_no_clip(family)) is None:
        distances.append(("cmmd", ClipFeatures(family), cmmd))
        found += _clip_scores(family, prompts, texts, files)
    else:
        absent += [{"metric": metric, "prompts": prompts, "reason": reason} for metric in ("cmmd", "clip score")]
    pictures, place = list(files["original"]), "original"
    if reference is not None:
        pictures = reference_pictures(reference)
        place = f"{reference.name} ({len(pictures)} images, {digest(pictures)})"
        random.Random(0).shuffle(pictures)  # of a larger set a part is taken, which must not be its first folder
    for metric, extractor, distance in distances:
        models: tuple[ModelName, ...] = ("original", "erased") if reference is not None else ("erased",)
        for model in models:
            measured = distance(feature_batches(extractor, pictures), feature_batches(extractor, files[model]))
            if measured is None:
                got = f"{min(len(pictures), len(files[model]))} images, {LEAST[metric]} are needed"
                absent.append({"metric": metric, "prompts": prompts, "reason": got})
            else:
                contract = f"{metric}[{extractor.name}] from {place}"
                found.append(Estimate(metric, model, prompts, *measured, contract))
    return found, absent


def reference_pictures(folder: Path) -> list[Path]:
    """The images of a reference folder and its subfolders. DuoError: there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not found:
        got = f"no {', '.join(PICTURES)} in it" if folder.is_dir() else "no such folder"
        raise DuoError(f"evaluate.reference: {folder} holds no images", got=got, hint="a folder of images, or none")
    return found


def digest(pictures: Sequence[Path]) -> str:
    """Names and sizes of image files, in 8 digits."""
    told = "\n".join(f"{path.name} {path.stat().st_size}" for path in pictures)
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def _clip_scores(
    family: str, prompts: str, texts: Sequence[str], files: Mapping[ModelName, Sequence[Path]]
) -> list[Estimate]:
    found = []
    for model, paths in files.items():
        scores: list[float] = []
        for first in range(0, len(paths), BATCH):
            images = [_open(path) for path in paths[first : first + BATCH]]
            scores += clip_score(family, images, texts[first : first + BATCH])
        if len(scores) > 1:
            contract = f"cosine[{clip_for(family).name}]"
            found.append(Estimate("clip score", model, prompts, *mean_interval(scores), len(scores), contract))
    return found


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
