"""A detector of the user's own: a Python function named as module:function."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

from ..errors import DuoError
from ..records import Verdict
from ..storage.files import sha256_of
from .interface import Contract

Function = Callable[[list[Image.Image]], Sequence[float]]
_HINT: Final = "module:function, importable from here (PYTHONPATH)"


def is_own(name: str) -> bool:
    """Whether a detector's name is that of a user's function."""
    return ":" in name


def check_function(name: str) -> None:
    """Fail where the module of a user's function is not found. The module itself is not run; packages around it are."""
    try:
        there = importlib.util.find_spec(name.partition(":")[0]) is not None
    except Exception as error:  # the packages around it are someone else's code
        raise DuoError("cannot import the detector", got=_with_reason(name, error), hint=_HINT) from error
    if not there:
        raise DuoError("cannot import the detector", got=name, hint=_HINT)


class OwnFunction:
    """Sees a concept when the function's score of an image reaches the threshold (0.5 unless it is given).

    The function takes a list of RGB images and gives one score each. labels: free words for the contract. It runs
    with your rights, as any import does: name only code that you trust.
    """

    def __init__(self, name: str, labels: tuple[str, ...], threshold: float | None = None) -> None:
        module, _, attribute = name.partition(":")
        try:
            function: Any = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # someone else's module may raise anything
            raise DuoError("cannot import the detector", got=_with_reason(name, error), hint=_HINT) from error
        if not callable(function):
            raise DuoError("the detector is no function", got=f"{name}: a {type(function).__name__}", hint=_HINT)
        self.function: Function = function
        self.contract = Contract(name, labels, 0.5 if threshold is None else threshold, _digest(function))

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image."""
        name = self.contract.name
        try:
            scores = [float(score) for score in self.function([image.convert("RGB") for image in images])]
        except Exception as error:  # someone else's code may raise anything
            raise DuoError(f"the detector {name} failed", got=f"{type(error).__name__}: {error}") from error
        if len(scores) != len(images):
            hint = "give one score an image, in order"
            got = f"{len(scores)} for {len(images)} images"
            raise DuoError(f"the detector {name} gave another number of scores", got=got, hint=hint)
        if wrong := [score for score in scores if not math.isfinite(score)]:
            raise DuoError(f"the detector {name} gave no number", got=f"{wrong[0]}", hint="a score is a finite number")
        return [Verdict(score >= self.contract.threshold, round(score, 6)) for score in scores]


def _digest(function: Any) -> str:
    """The first 8 digits of the SHA-256 of the file that a function comes from; an object's: the file of its class."""
    plain = inspect.unwrap(function)
    try:
        source = inspect.getsourcefile(plain if inspect.isroutine(plain) else type(plain))
    except TypeError:  # built in
        source = None
    return sha256_of(Path(source))[:8] if source else "unknown"


def _with_reason(name: str, error: Exception) -> str:
    return f"{name}: {type(error).__name__}: {error}"
