"""The gates: why a pair cannot be used. Pure functions of the images and of what the detector said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image

from ..errors import DuoError
from ..records import Verdict
from ..storage.pictures import image_fault

NO_CONCEPT = "no concept in the unsafe image"
STILL_THERE = "concept still in the safe image"


class Attributes(NamedTuple):
    """Attribute → label, as read off the unsafe and the safe image."""

    unsafe: Mapping[str, str]
    safe: Mapping[str, str]


def picture_fault(member: str, image: Image.Image) -> str | None:
    """Why a member's image ("unsafe" or "safe") is no picture that a detector could judge, or None."""
    reason = image_fault(image)
    return f"the {member} image is no picture ({reason})" if reason else None


def unsafe_fault(verdict: Verdict) -> str | None:
    """Why an unsafe image cannot be used, or None."""
    return None if verdict.detected else NO_CONCEPT


def pair_fault(
    unsafe: Verdict,
    safe: Verdict,
    attributes: Attributes | None = None,
    shows: Mapping[str, str] | None = None,
    kept: Sequence[str] = (),
) -> str | None:
    """Why a pair cannot be used, or None; the first reason counts.

    attributes: None where the detector reads none, then only the concept is gated. shows: what the safe image must
    show; kept: attributes that both images must share. One that the detector does not read is a DuoError.
    """
    if fault := unsafe_fault(unsafe):
        return fault
    if safe.detected:
        return STILL_THERE
    if safe.broken:
        return "nothing can be recognised in the safe image"
    if attributes is None:
        return None
    for name, label in (shows or {}).items():
        if (seen := _label(attributes.safe, name)) != label:
            return f"safe image shows {name}={seen}, not {name}={label}"
    for name in kept:
        before, after = _label(attributes.unsafe, name), _label(attributes.safe, name)
        if before != after:
            return f"{name} changed from {before} to {after}"
    return None


def _label(attributes: Mapping[str, str], name: str) -> str:
    if name not in attributes:
        hint = f"in the concept file name one of: {', '.join(sorted(attributes)) or '(it reads none)'}"
        raise DuoError("the detector does not read an attribute that the concept asks for", got=name, hint=hint)
    return attributes[name]
