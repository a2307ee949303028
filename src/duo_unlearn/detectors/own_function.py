"""A detector of the user's own: a Python function named as module:function."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..errors import DuoError
from ..records import Verdict
from ..storage.files import sha256_of
from .interface import Contract

Function = Callable[[list[Image.Image]], Sequence[float]]


class PythonCallable:
    """Sees a concept when the function's score of an image reaches the threshold (0.5 unless given).

    The function takes a list of RGB images and gives one score each. labels: free words for the contract. It runs
    with your rights, as any import does: name only code that you trust.
    """

    def __init__(self, name: str, labels: tuple[str, ...], threshold: float | None = None) -> None:
        module, _, attribute = name.partition(":")
        try:
            self.function: Function = getattr(importlib.import_module(module), attribute)
        except Exception as error:  # someone else's module: whatever it raises is told in one line
            hint = "module:function, importable from here (PYTHONPATH)"
            got = f"{name}: {type(error).__name__}: {error}"
            raise DuoError("cannot import the detector", got=got, hint=hint) from error
        plain = inspect.unwrap(self.function)
        # An object that can be called is hashed by the file of its class.
        source = inspect.getsourcefile(plain if inspect.isroutine(plain) else type(plain))
        weights = sha256_of(Path(source))[:8] if source else "unknown"
        self.contract = Contract(name, labels, 0.5 if threshold is None else threshold, weights)

    def detect(self, images: Sequence[Image.Image]) -> list[Verdict]:
        """One verdict an image."""
        try:
            scores = [float(score) for score in self.function([image.convert("RGB") for image in images])]
        except Exception as error:  # someone else's code: whatever it raises is told in one line
            raise DuoError(
                f"the detector {self.contract.name} failed", got=f"{type(error).__name__}: {error}"
            ) from error
        if len(scores) != len(images):
            hint = "give one score an image, in order"
            got = f"{len(scores)} for {len(images)} images"
            raise DuoError(f"the detector {self.contract.name} gave another number of scores", got=got, hint=hint)
        if wrong := [score for score in scores if not math.isfinite(score)]:
            hint = "a score is a finite number"
            raise DuoError(f"the detector {self.contract.name} gave no number", got=f"{wrong[0]}", hint=hint)
        return [Verdict(score >= self.contract.threshold, round(score, 6)) for score in scores]
