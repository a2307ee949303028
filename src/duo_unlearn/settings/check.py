"""`duo check`: every fault of a run at once, before it starts, offline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..concepts.spec import Concept
from ..concepts.store import load_concept
from ..detectors.registry import check_detector
from ..erasers.interface import checked_options, why_no_floor
from ..erasers.registry import ERASERS
from ..erasers.wraps import WRAPS, why_not_wrapped
from ..errors import DuoError
from ..families.identify import model_faults
from ..families.quantize import check_quantize, check_quantize_device
from ..families.registry import FAMILIES
from ..runs.folder import Run, dead_link
from ..storage.files import printable
from ..storage.forms import read_yaml
from .guards import check_asked, check_guard_family
from .resolve import check_read, resolve_settings, settings_layers
from .tree import Settings, merge, place_of, resolve
from .wordless import check_words, known_pairs

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Check(NamedTuple):
    """What `find_faults` gives: every fault, and the settings as resolved, None where there is a fault."""

    settings: Settings | None
    faults: list[DuoError]


class _Faults:
    """Runs checks one after another and keeps what they raise."""

    def __init__(self) -> None:
        self.errors: list[DuoError] = []

    def attempt(self, check: Callable[[], T]) -> T | None:
        """What a check gives, or None where it raises a DuoError, which is kept."""
        try:
            return check()
        except DuoError as error:
            self.errors.append(error)
            return None


def find_faults(given: Mapping[str, Any], file: Path | None = None) -> Check:
    """Everything that is wrong with a run before it starts: settings, concept, model, detector, pairs, output.

    given, file: as `resolve_settings` takes them. Nothing is fetched. The weights of the denoiser are read once.
    """
    faults = _Faults()
    from_file = (faults.attempt(lambda: read_yaml(file, "settings file")) or {}) if file is not None else {}
    layers = faults.attempt(lambda: settings_layers(from_file, given))
    settings = faults.attempt(lambda: resolve(*layers)) if layers is not None else None
    model, concept_name = _names(settings, merge(from_file, given))
    concept = faults.attempt(lambda: load_concept(concept_name))
    errors, family = model_faults(model, weights=True)
    faults.errors += errors
    if concept is not None and family is not None:
        asked = [] if settings is None else [settings.detector, *(settings.evaluate.judges or [])]
        for name in dict.fromkeys(asked or [None]):
            faults.attempt(partial(_check_detector, concept, name, family))
    if settings is None:
        return Check(None, faults.errors)
    if concept is not None:
        for asked_check in _asked_checks(concept, settings, family):
            faults.attempt(asked_check)
    for check in _checks(settings, family):
        faults.attempt(check)
    resolved = None if faults.errors else faults.attempt(lambda: resolve_settings(given, file))
    if resolved is not None and family is not None:
        faults.attempt(partial(check_family, resolved, family))
        faults.attempt(partial(check_files, resolved))
        faults.attempt(partial(_check_words, resolved))
        faults.attempt(partial(check_read, given, resolved, file))
    return Check(None if faults.errors else resolved, faults.errors)


def _check_words(settings: Settings) -> None:
    """Fail for pairs without the prompts that the eraser or its floor reads."""
    check_words(settings, known_pairs(settings))


def _asked_checks(concept: Concept, settings: Settings, family: str | None) -> list[Callable[[], None]]:
    """A check a guard: whether the detector that it asks may be asked, and can be had."""
    options = settings.guards
    return [partial(check_asked, concept, settings, name, options.get(name, {}), family) for name in settings.guard]


def _check_detector(concept: Concept, name: str | None, family: str) -> None:
    """Fail for a detector or judge that the concept does not have, or that cannot judge the family's pictures."""
    spec = concept.detector_named(name)
    check_detector(spec.name, family, tuple(spec.labels), spec.threshold)


def _names(settings: Settings | None, values: Mapping[str, Any]) -> tuple[str, str]:
    """Model and concept, each on its own where the settings as a whole have faults; a faulty name gives the default."""
    if settings is not None:
        return settings.model, settings.concept
    names = []
    for key in ("model", "concept"):
        try:
            alone = resolve({key: values[key]} if key in values else {})
        except DuoError:
            alone = Settings()
        names.append(getattr(alone, key))
    return names[0], names[1]


def _checks(settings: Settings, family: str | None) -> Iterator[Callable[[], object]]:
    """The checks of settings that are valid by themselves: what the family can have, and files and folders."""
    if family is not None and settings.recipe != "robust":  # its eraser is known once the settings are resolved
        yield lambda: check_family(settings, family)
    if settings.quantize != "no" and family is not None:
        yield lambda: check_quantize(settings.quantize, family, settings.model)
    yield lambda: check_device(settings)
    if (folder := settings.pairs.folder) is not None:
        from ..pairs.own_pairs import are_taken, check_pairs

        yield lambda: None if are_taken(folder, Run(settings.output).pairs) else check_pairs(folder)
    if (captions := settings.evaluate.captions) is not None:
        from ..concepts.captions import read_captions

        yield lambda: read_captions(captions)
    if (reference := settings.evaluate.reference) is not None:
        from ..metrics.fidelity import reference_pictures

        yield lambda: reference_pictures(reference)
    yield lambda: check_output(settings.output)


def check_family(settings: Settings, family: str) -> None:
    """Fail for an eraser or a guard that a family cannot have, and for a wrap or floor that the eraser cannot have."""
    kind, eraser = FAMILIES.get(family), ERASERS.get(settings.eraser)
    for name in filter(None, (settings.eraser, settings.floor)):
        one, own = ERASERS.get(name), settings.own if name == settings.eraser else settings.erasers.get(name, {})
        if (reason := one.why_not(kind)) is not None:
            raise DuoError(f"the eraser {name} cannot be used here", got=reason, hint="duo erasers")
        if (reason := one.why_not_options(kind, checked_options(one, own))) is not None:
            hint = f"other options under {place_of(name)}"
            raise DuoError(f"the eraser {name} cannot be used so", got=reason, hint=hint)
    if settings.floor is not None and (reason := why_no_floor(ERASERS.get(settings.floor), eraser)) is not None:
        hint = "another --floor, or none: --set floor=null"
        raise DuoError(f"{settings.floor} cannot lie below {settings.eraser}", got=reason, hint=hint)
    if settings.wrap is not None and (reason := why_not_wrapped(eraser)) is not None:
        hint = "another --eraser; or --set wrap=null"
        raise DuoError(f"the eraser {settings.eraser} cannot be wrapped in {settings.wrap}", got=reason, hint=hint)
    for name in settings.guard:
        check_guard_family(name, family)


def check_training(settings: Settings, family: str) -> None:
    """Fail for what a training would fail by, before the hours that pairs take."""
    check_family(settings, family)
    for check in _asked_checks(load_concept(settings.concept), settings, family):
        check()
    check_device(settings)
    check_files(settings)


def check_files(settings: Settings) -> None:
    """Fail for a file of the eraser's options that is not there or cannot be read."""
    eraser = ERASERS.get(settings.eraser)
    eraser.check_files(Run(settings.output), checked_options(eraser, settings.own))


def check_device(settings: Settings) -> None:
    """Fail for a device that is not there, or that cannot train in the precision asked for."""
    from ..families.load import check_precision, pick_device

    device = pick_device(settings.device)
    check_quantize_device(settings.quantize, device)
    if ERASERS.get(settings.eraser).trains:
        for precision in {settings.train.mixed_precision, settings.own.get("mixed_precision", "no")}:
            check_precision(precision, device)
    check_whole_weights(settings, device)
    check_wrap_weights(settings, device)


def check_whole_weights(settings: Settings, device: torch.device) -> None:
    """Fail for an eraser, or a floor, that trains whole weights where a device has them in half precision."""
    for name in filter(None, (settings.eraser, settings.floor)):
        eraser = ERASERS.get(name)
        if eraser.course is not None and eraser.makes == "weights" and (kinds := _coarse(settings, device)):
            hint = "mixed_precision no and quantize no, or an eraser that trains an adapter"
            raise DuoError(f"{name} trains whole weights, in full precision", got=", ".join(kinds), hint=hint)


def _coarse(settings: Settings, device: torch.device) -> list[str]:
    """In which ways weights are coarser than float32. A CPU has them in it whatever the precision of passes is."""
    kinds: list[str] = [settings.quantize] if settings.quantize != "no" else []
    half = settings.train.mixed_precision != "no" and device.type != "cpu"
    return [*kinds, *([settings.train.mixed_precision] if half else [])]


def check_wrap_weights(settings: Settings, device: torch.device) -> None:
    """Fail for a wrap that moves the model's weights where a device has them in half precision or quantised."""
    if settings.wrap is None:
        return
    wrap = WRAPS.get(settings.wrap)
    if not wrap.needs_float32(wrap.settings.model_validate(settings.wraps.get(wrap.name, {}))):
        return
    if kinds := _coarse(settings, device):
        hint = f"mixed_precision no and quantize no, or other options under wraps.{wrap.name}"
        raise DuoError(f"{wrap.name} moves weights, so it needs them in float32", got=", ".join(kinds), hint=hint)


def check_output(folder: Path) -> None:
    """Fail where a run cannot be written in a folder: it is a file, has no room for the run's files, or is in use."""
    if folder.exists() and not folder.is_dir():
        raise DuoError(f"the output {folder} is a file", hint="choose another --output")
    if (got := dead_link(folder)) is not None:
        raise DuoError(
            f"the output folder {folder} cannot be made", got=got, hint="make it, or choose another --output"
        )
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise DuoError(f"the output folder {folder} cannot be written", hint="choose another --output")
    if folder.exists():
        run = Run(folder)
        run.check_form()
        _check_places(run)
        with run.lock():
            pass


def _check_places(run: Run) -> None:
    """Fail where a folder stands in a file's place, or a file in a folder's: writing would fail there, hours later."""
    places = [path for path in vars(run).values() if isinstance(path, Path) and path != run.folder]
    places += (run.folder / "train").glob("*/*")
    for path in places:
        is_file = bool(path.suffix)  # of the names in a run folder, those of files alone have one
        if path.exists() and path.is_file() != is_file:
            must, got = ("a file", "a folder") if is_file else ("a folder", "a file")
            raise DuoError(
                f"{printable(path)} must be {must}", got=got, hint="move it away, or choose another --output"
            )
