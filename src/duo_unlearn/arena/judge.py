"""Judging apart: a detector's verdict on every image that was sampled, kept by the image's hash; nothing is sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from PIL import Image

from ..detectors.interface import AttributeReader, Detector, verdicts_of
from ..errors import DuoError
from ..progress import progress
from ..runs.attempts import parts_of, read_groups, shared
from ..runs.folder import Run
from ..runs.verdicts import Reading, Verdicts, read_verdicts, write_verdicts
from ..storage.files import sha256_of
from ..storage.pictures import image_fault, read_image

BATCH: Final = 64


def judge(run: Run, detector: Detector, *, quiet: bool = False) -> bool:
    """Judge every attempt under the detector's contract; gives whether there was something to judge.

    What was judged already is read. What could not be judged is tried again. A detector that fails on every image is a
    DuoError, and nothing is written.
    """
    known = read_verdicts(run, str(detector.contract)) or _empty(detector)
    todo: dict[str, str] = {}
    asked = False
    for part in (part for record in read_groups(run) for part in parts_of(run, record)):
        asked |= bool(part.attempts)
        for attempt in part.attempts:
            if attempt.sha256 is not None and attempt.file is not None and attempt.sha256 not in known.readings:
                todo[attempt.sha256] = attempt.file
    if not asked:
        hint = f"duo evaluate -o {run.argument}, or duo attack {run.argument}"
        raise DuoError(f"{run.folder} holds no attempts", hint=hint)
    if not todo:
        return False
    readings, faults = dict(known.readings), {}
    with progress("judge", len(todo), quiet=quiet) as report:
        for done, sha256, reading, fault in _read(run, detector, list(todo.items())):
            if reading is not None:
                readings[sha256] = reading
            else:
                faults[sha256] = fault
            report(done)
    if len(todo) > 1 and len(faults) == len(todo) and not known.readings:
        hint = "mend it, and run the same command again; what was sampled is kept"
        reason = next(iter(faults.values()))
        raise DuoError(f"the detector {detector.contract.name} fails on every image", got=reason, hint=hint)
    changed = (readings, faults) != (known.readings, known.faults)
    if changed:
        write_verdicts(run, known._replace(readings=readings, faults=faults))
    return changed


def _read(
    run: Run, detector: Detector, images: Sequence[tuple[str, str]]
) -> Iterator[tuple[int, str, Reading | None, str]]:
    """(how many are done, image's hash, reading, why there is none) of each image, BATCH in memory at a time.

    images: the hash and the file of each.
    """
    for first in range(0, len(images), BATCH):
        part = images[first : first + BATCH]
        opened = [_picture(run.folder / file, sha256) for sha256, file in part]
        errors: list[str] = []
        verdicts = verdicts_of(detector, [image for image, _ in opened], errors)
        whole = [image for (image, _), verdict in zip(opened, verdicts, strict=True) if verdict and image is not None]
        reads = detector.read(whole) if isinstance(detector, AttributeReader) and whole else [{}] * len(whole)
        attributes = iter(reads)
        for i, ((sha256, _), (image, fault), verdict) in enumerate(zip(part, opened, verdicts, strict=True)):
            if verdict is not None:
                yield first + i + 1, sha256, Reading(verdict, shared(tuple(next(attributes).items()))), ""
            else:
                reason = fault if image is None else errors.pop(0)
                yield first + i + 1, sha256, None, reason


def _picture(path: Path, sha256: str) -> tuple[Image.Image | None, str]:
    """The image of a file, or None and why it cannot be judged. sha256: what was sampled."""
    errors: list[str] = []
    if path.is_file() and sha256_of(path) != sha256:
        return None, f"{path.name} is not the image that was sampled (SHA-256 differs)"
    image = read_image(path, errors)
    if image is None:
        return None, errors[0] if errors else f"{path.name} cannot be read"
    fault = image_fault(image)
    return (None, f"{path.name} is no picture: {fault}") if fault else (image, "")


def _empty(detector: Detector) -> Verdicts:
    contract = str(detector.contract)
    return Verdicts(contract, contract.partition("[")[0] + "@" + detector.contract.weights, {}, {})
