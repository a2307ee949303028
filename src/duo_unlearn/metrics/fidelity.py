"""What a prompt set's images keep beside the original's: pair by pair, as a distribution, and beside their prompts."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from PIL import Image
from torch import Tensor

from ..errors import DuoError
from ..features.clip import cosines, embed_texts, why_no_clip
from ..features.extractors import BATCH, ClipFeatures, Features, feature_batches, features_for, preservation
from ..features.lpips import NAME as LPIPS
from ..features.lpips import lpips, why_no_lpips
from ..interval import mean_interval
from ..records import Estimate, ModelName
from .distribution import LEAST, Cmmd, Distribution, Fid, Kid
from .estimate import preserved

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
    """Estimates of a prompt set. files: a model's images, in the order of the texts. Each is embedded once a network.

    reference: a folder of images that both models' distributions are measured from; without one it is the original
    model's images, under the same prompts and noise.
    """
    if not texts:
        return [], []
    images = _Images(prompts, texts, files, reference)
    found, absent = _by_features(images, features_for(family))
    for measured, lacking in (_by_lpips(images), _by_clip(images, family)):
        found, absent = [*found, *measured], [*absent, *lacking]
    return found, absent


class _Images:
    """The image files of a prompt set, by whose they are: the models', and a reference folder's."""

    def __init__(
        self, prompts: str, texts: Sequence[str], files: Mapping[ModelName, Sequence[Path]], reference: Path | None
    ) -> None:
        self.prompts, self.texts, self.reference = prompts, texts, reference
        self.files: dict[str, Sequence[Path]] = {"original": files["original"], "erased": files["erased"]}
        self.base, self.base_name = "original", "original"
        self.measured: tuple[ModelName, ...] = ("erased",)
        if reference is not None:
            pictures = reference_pictures(reference)
            self.base, self.base_name = "reference", f"{reference.name} ({len(pictures)} images, {digest(pictures)})"
            self.measured = ("original", "erased")
            random.Random(0).shuffle(pictures)  # of a larger set a part is taken, which must not be its first folder
            self.files["reference"] = pictures

    def rows(self, features: Features) -> Iterator[dict[str, Tensor]]:
        """The next batch of each set's features, side by side; a set that has ended is not among them."""
        streams = {name: feature_batches(features, paths) for name, paths in self.files.items()}
        while batches := {name: batch for name, stream in streams.items() if (batch := next(stream, None)) is not None}:
            yield batches

    def estimates(self, distances: Mapping[tuple[str, ModelName], Distribution], features: Features) -> Measured:
        """What distances of the base from the models are."""
        found, absent = [], []
        for (metric, model), distance in distances.items():
            if (measured := distance.result()) is None:
                got = f"{min(len(self.files[self.base]), len(self.files[model]))} images, {LEAST[metric]} are needed"
                absent.append({"metric": metric, "prompts": self.prompts, "reason": got})
            else:
                contract = f"{metric}[{features.name}] from {self.base_name}"
                found.append(Estimate(metric, model, self.prompts, *measured, contract))
        return found, absent


def _by_features(images: _Images, features: Features) -> Measured:
    """Prior preservation, FID and KID."""
    makers: dict[str, Callable[[], Distribution]] = {
        "fid": Fid,
        "kid": functools.partial(Kid, paired=images.reference is None),
    }
    distances: dict[tuple[str, ModelName], Distribution] = {
        (metric, model): make() for metric, make in makers.items() for model in images.measured
    }
    kept: list[float] = []
    for rows in images.rows(features):
        if "original" in rows and "erased" in rows:
            kept += preservation(rows["original"], rows["erased"])
        for (_, model), distance in distances.items():
            distance.add(rows.get(images.base), rows.get(model))
    found, absent = images.estimates(distances, features)
    return [*preserved(images.prompts, kept, features.name), *found], absent


def _by_clip(images: _Images, family: str) -> Measured:
    """CMMD and the CLIP score."""
    if (reason := why_no_clip(family)) is not None:
        return [], [{"metric": m, "prompts": images.prompts, "reason": reason} for m in ("cmmd", "clip score")]
    features, named = ClipFeatures(family), embed_texts(family, images.texts)
    distances: dict[tuple[str, ModelName], Distribution] = {("cmmd", model): Cmmd() for model in images.measured}
    scores: dict[ModelName, list[float]] = {"original": [], "erased": []}
    for rows in images.rows(features):
        if not any(model in rows for model in scores):
            break  # of a larger reference the rest has nothing to be compared with
        for (_, model), distance in distances.items():
            distance.add(rows.get(images.base), rows.get(model))
        for model, values in scores.items():
            if model in rows:
                values += cosines(rows[model], named[len(values) : len(values) + len(rows[model])])
    found, absent = images.estimates(distances, features)
    contract = f"cosine[{features.name}]"
    for model, values in scores.items():
        if len(values) > 1:
            found.append(Estimate("clip score", model, images.prompts, *mean_interval(values), len(values), contract))
    return found, absent


def _by_lpips(images: _Images) -> Measured:
    before, after = images.files["original"], images.files["erased"]
    if (reason := why_no_lpips(_open(before[0]).size)) is not None:
        return [], [{"metric": "lpips", "prompts": images.prompts, "reason": reason}]
    values: list[float] = []
    for first in range(0, len(before), BATCH):
        sides = ([_open(path) for path in paths[first : first + BATCH]] for paths in (before, after))
        values += lpips(*sides)
    if len(values) < 2:
        return [], [{"metric": "lpips", "prompts": images.prompts, "reason": "one image has no interval"}]
    return [Estimate("lpips", "erased", images.prompts, *mean_interval(values), len(values), LPIPS)], []


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


def _open(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")
