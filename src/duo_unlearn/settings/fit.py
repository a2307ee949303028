"""Which settings of a run fit one device: what each change saves by the estimate of `needs`, the least harmful first.

The harm of a change, from none to most. Smaller batches of images: none, each image is the same. Gradient
checkpointing, and several small batches a step in place of one: none but time, the gradient is the same. Fewer images a
step of the inverted token: that search is coarser. Half precision, 8 bits, 4 bits: every prediction is coarser. A
smaller resolution: another task than the model was made for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from ..concepts.spec import Concept
from ..errors import DuoError
from ..families.family import Family
from ..families.identify import family_of
from ..families.quantize import why_no_package
from ..families.registry import FAMILIES
from ..records import Quantize
from .needs import COUNTED, Needs, estimate, inverts, side_of
from .tree import Settings

SIDES: Final = (0.75, 0.5)
"""Shares of the resolution that are tried where nothing else is enough."""
Changes = Mapping[str, Any]
"""Dotted keys of settings and their values."""


class Fit(NamedTuple):
    """Settings that fit. changes: what differs from those that were given. install: a command to run first, or None.

    time: of training and sampling, against the settings that were given. It counts operations alone: what small batches
    or weights in few bits cost beside is not in it.
    """

    changes: Changes
    needs: Needs
    time: float
    install: str | None

    @property
    def words(self) -> str:
        """The changes as the command line takes them."""
        return " ".join(
            f"--set {key}={str(v).lower() if isinstance(v, bool) else v}" for key, v in self.changes.items()
        )

    @property
    def peak(self) -> float:
        """GB that the run takes at most."""
        return max(self.needs.training, self.needs.sampling)

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "set": dict(self.changes), "training_gb": round(self.needs.training, 2),
            "sampling_gb": round(self.needs.sampling, 2), "time": round(self.time, 3), "install": self.install,
        }  # fmt: skip


def memory_of(text: str) -> float:
    """What --fit says, in GB. DuoError: it is no number above 0."""
    try:
        memory = float(text)
    except ValueError:
        memory = math.nan
    if not 0 < memory < math.inf:
        raise DuoError("--fit is the memory of one device in GB", got=repr(text[:40]), hint="for example --fit 24")
    return memory


def fits(settings: Settings, concept: Concept, memory: float) -> list[Fit]:
    """The settings of a run that fit `memory` GB, least harmful first; none for the mini model, which always fits.

    One that another of them is a part of is left out. DuoError: nothing fits, and what the least would be; or the
    eraser is not `duo`, whose training alone is estimated.
    """
    if settings.edit != COUNTED:
        hint = "--eraser duo; or without --fit, where `duo check` tells what is counted of it"
        raise DuoError("what fits is known for the training of duo alone", got=settings.edit, hint=hint)
    before, family = estimate(settings, concept), FAMILIES.get(family_of(settings.model))
    if before is None:
        return []
    hours = before.training_hours + before.sampling_hours
    found: list[tuple[tuple[int, ...], Fit]] = []
    least: Fit | None = None
    for harm, changes in sorted(_candidates(settings, family), key=lambda candidate: candidate[0]):
        if any(all(a <= b for a, b in zip(known, harm, strict=True)) for known, _ in found):
            continue
        for fit in _by_batch(settings, concept, changes, hours):
            if least is None or fit.peak < least.peak:
                least = fit
            if fit.peak <= memory:
                found.append((harm, fit))
                break
    if not found and least is not None:
        training, sampling = least.needs.training, least.needs.sampling
        got = f"the least is {training:.1f} GB in training, {sampling:.1f} GB in sampling, with {least.words}"
        raise DuoError(f"nothing fits {memory:g} GB", got=got, hint=f"a device with {math.ceil(least.peak)} GB")
    return [fit for _, fit in found]


def _by_batch(settings: Settings, concept: Concept, changes: Changes, hours: float) -> Iterator[Fit]:
    """The settings with some changes, under ever smaller batches of images."""
    batches = {"evaluate.batch": settings.evaluate.batch, "pairs.batch": settings.pairs.batch}
    for most in _halves(max(batches.values())):
        smaller = {key: most for key, batch in batches.items() if batch > most}
        whole = {**changes, **smaller}
        needs = estimate(changed(settings, whole), concept)
        assert needs is not None
        time = (needs.training_hours + needs.sampling_hours) / hours
        yield Fit(whole, needs, time, why_no_package(changes.get("quantize", "no")))


def _candidates(settings: Settings, family: Family) -> Iterator[tuple[tuple[int, ...], Changes]]:
    """Every combination, nothing changed among them: (harm of each kind, most harmful kind first; changes)."""
    for chosen in itertools.product(*(list(enumerate(kind)) for kind in _kinds(settings, family))):
        changes: dict[str, Any] = {}
        for _, change in reversed(chosen):
            changes |= change
        yield tuple(harm for harm, _ in chosen), changes


def _kinds(settings: Settings, family: Family) -> list[list[Changes]]:
    """What can be changed, the most harmful kind first; of each kind first nothing, then more and more."""
    train, counts = settings.train, settings.evaluate
    side = side_of(settings, family) or (family.size.resolution if family.size is not None else 0)
    sides = [int(side * share) // 16 * 16 for share in SIDES]
    kinds = get_args(Quantize)
    coarser = kinds[kinds.index(settings.quantize) + 1 :]
    able = family.quantizable and Path(settings.model).suffix != ".safetensors"
    shares = [n for n in range(2, train.train_batch_size + 1) if train.train_batch_size % n == 0]
    splits: list[Changes] = [
        {
            "train.train_batch_size": train.train_batch_size // n,
            "train.gradient_accumulation_steps": train.gradient_accumulation_steps * n,
        }
        for n in shares
    ]
    fewer = _halves(counts.inversion_batch)[1:] if inverts(settings, family) else []
    return [
        [{}, *({"resolution": smaller} for smaller in sides)],
        [{}, *({"quantize": kind} for kind in coarser if able)],
        [{}, *([{"train.mixed_precision": "bf16"}] if train.mixed_precision == "no" else [])],
        [{}, *({"evaluate.inversion_batch": batch} for batch in fewer)],
        [{}, *splits],
        [{}, *([] if train.gradient_checkpointing else [{"train.gradient_checkpointing": True}])],
    ]


def _halves(count: int) -> list[int]:
    """8 → 8, 4, 2, 1."""
    return [count, *_halves(count // 2)] if count > 1 else [1]


def changed(settings: Settings, changes: Changes) -> Settings:
    """The settings with some other values."""
    parts: dict[str, Any] = {}
    for key, value in changes.items():
        part, _, name = key.rpartition(".")
        if part:
            parts[part] = parts.get(part, getattr(settings, part)).model_copy(update={name: value})
        else:
            parts[name] = value
    return settings.model_copy(update=parts)


def as_lines(found: list[Fit]) -> list[str]:
    """A line each: words to be pasted, and behind # what they need."""
    lines = []
    for fit in found:
        figures = f"training {fit.needs.training:.1f} GB, sampling {fit.needs.sampling:.1f} GB, time × {fit.time:.2f}"
        install = f"; first: {fit.install}" if fit.install is not None else ""
        as_it_is = "" if fit.words else "as it is: "
        lines.append(f"{fit.words}  # {as_it_is}{figures}{install}".strip())
    return lines
