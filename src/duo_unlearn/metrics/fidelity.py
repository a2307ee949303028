"""What a scenario's images keep beside the original's: pair by pair, as a distribution, and beside their prompts."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image
from torch import Tensor

from ..errors import DuoError
from ..features.clip import ClipFeatures, cosines, embed_texts, why_no_clip
from ..features.interface import BATCH, Features, feature_batches, preservation
from ..features.lpips import NAME as LPIPS
from ..features.lpips import lpips, why_no_lpips
from ..features.registry import features_for
from ..records import Estimate, Source
from ..storage.pictures import read_image
from .distribution import LEAST, Cmmd, Distribution, Fid, Kid

PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp")


class Measured(NamedTuple):
    """Estimates, and (metric, reason) of what there is none of."""

    estimates: list[Estimate]
    absent: list[tuple[str, str]]


def _joined(*parts: Measured) -> Measured:
    return Measured([e for part in parts for e in part.estimates], [a for part in parts for a in part.absent])


class Images(NamedTuple):
    """The image files of a scenario under one system, in the order of the texts.

    original: the original model's, of the same prompts and noise; None where the system is the original. reference: a
    folder of images that distributions are measured from; None: they are measured from the original's images.
    """

    source: Source
    texts: Sequence[str]
    system: Sequence[Path]
    original: Sequence[Path] | None
    reference: Path | None

    @property
    def base(self) -> tuple[str, Sequence[Path]] | None:
        """The name and the files of what distributions are measured from; None where there is nothing."""
        if self.reference is None:
            return None if self.original is None else ("original", self.original)
        pictures = reference_pictures(self.reference)
        name = f"{self.reference.name} ({len(pictures)} images, {names_digest(pictures)})"
        random.Random(0).shuffle(pictures)  # of a larger set a part is taken, which must not be its first folder
        return name, pictures


def fidelity(family: str, images: Images) -> Measured:
    """Estimates of a scenario's images under one system. Each image is embedded once a network."""
    if not images.texts:
        return Measured([], [])
    return _joined(_by_features(images, features_for(family)), _by_lpips(images), _by_clip(images, family))


def _rows(features: Features, sets: Mapping[str, Sequence[Path]]) -> Iterator[dict[str, Tensor]]:
    """The next batch of each set's features, side by side; a set that has ended is not among them."""
    streams = {name: feature_batches(features, paths) for name, paths in sets.items()}
    while batches := {name: batch for name, stream in streams.items() if (batch := next(stream, None)) is not None}:
        yield batches


def _sets(images: Images) -> dict[str, Sequence[Path]]:
    base = images.base
    sets: dict[str, Sequence[Path]] = {} if base is None else {"base": base[1]}
    if images.original is not None and images.reference is not None:
        sets["original"] = images.original
    return {**sets, "system": images.system}


def _distances(images: Images, distances: Mapping[str, Distribution], features: Features) -> Measured:
    """The estimates of distances whose rows were all added."""
    measured, base = Measured([], []), images.base
    if base is None:
        return measured
    for metric, distance in distances.items():
        if (found := distance.result()) is None:
            got = f"{min(len(base[1]), len(images.system))} images, {LEAST[metric]} are needed"
            measured.absent.append((metric, got))
        else:
            contract = f"{metric}[{features.name}] from {base[0]}"
            measured.estimates.append(Estimate.of(metric, images.source._replace(contract=contract), *found))
    return measured


def _by_features(images: Images, features: Features) -> Measured:
    """Prior preservation, FID and KID."""
    sets = _sets(images)
    if len(sets) == 1:
        return Measured([], [])
    makers: dict[str, Callable[[], Distribution]] = {
        "fid": Fid,
        "kid": functools.partial(Kid, paired=images.reference is None),
    }
    distances = {metric: make() for metric, make in makers.items()}
    shares: list[float] = []
    for rows in _rows(features, sets):
        before = rows.get("original" if images.reference is not None else "base")
        if images.original is not None and before is not None and "system" in rows:
            shares += preservation(before, rows["system"])
        for distance in distances.values():
            distance.add(rows.get("base"), rows.get("system"))
    return _joined(preserved(images.source, shares, features.name), _distances(images, distances, features))


def preserved(source: Source, shares: Sequence[float], features: str) -> Measured:
    """Prior preservation: mean of 1 − perceptual distance between original and edited image, same prompt and noise."""
    found = Estimate.of_mean("prior preservation", source._replace(contract=f"cosine[{features}]"), shares)
    return Measured([_capped(estimate) for estimate in found], [])


def _capped(estimate: Estimate) -> Estimate:
    return dataclasses.replace(estimate, high=min(estimate.high, 1.0))


def _by_clip(images: Images, family: str) -> Measured:
    """CMMD and the CLIP score."""
    if (reason := why_no_clip(family)) is not None:
        return Measured([], [(metric, reason) for metric in ("cmmd", "clip score")])
    features = ClipFeatures(family)
    distances: dict[str, Distribution] = {"cmmd": Cmmd()}
    scores: list[float] = []
    for rows in _rows(features, _sets(images)):
        if "system" not in rows:
            break  # of a larger reference the rest has nothing to be compared with
        distances["cmmd"].add(rows.get("base"), rows.get("system"))
        texts = images.texts[len(scores) : len(scores) + len(rows["system"])]
        scores += cosines(rows["system"], embed_texts(family, texts))
    source = images.source._replace(contract=f"cosine[{features.name}]")
    measured = _distances(images, distances, features)
    return _joined(measured, Measured(Estimate.of_mean("clip score", source, scores), []))


def _by_lpips(images: Images) -> Measured:
    if images.original is None:
        return Measured([], [])
    before, after = images.original, images.system
    if (reason := why_no_lpips(_opened(before[0]).size)) is not None:
        return Measured([], [("lpips", reason)])
    values: list[float] = []
    for first in range(0, len(before), BATCH):
        sides = ([_opened(path) for path in paths[first : first + BATCH]] for paths in (before, after))
        values += lpips(*sides)
    if len(values) < 2:
        return Measured([], [("lpips", "one image has no interval")])
    return Measured(Estimate.of_mean("lpips", images.source._replace(contract=LPIPS), values), [])


def reference_pictures(folder: Path) -> list[Path]:
    """The images of a reference folder and its subfolders. DuoError: there are none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES)
    if not found:
        got = f"no {', '.join(PICTURES)} in it" if folder.is_dir() else "no such folder"
        raise DuoError(f"evaluate.reference: {folder} holds no images", got=got, hint="a folder of images, or none")
    return found


def names_digest(pictures: Sequence[Path]) -> str:
    """The hash of image files' names and sizes, in 8 digits."""
    lines = "\n".join(f"{path.name} {path.stat().st_size}" for path in pictures)
    return hashlib.sha256(lines.encode()).hexdigest()[:8]


def _opened(path: Path) -> Image.Image:
    errors: list[str] = []
    image = read_image(path, errors)
    if image is None:
        raise DuoError(f"cannot read the image {path}", got=errors[0], hint="remove or replace it")
    return image
