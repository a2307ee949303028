"""A detector of the user's own: a Python function named as module:function."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..errors import DuoError
from ..records import Verdict
from ..storage import sha256_of
from .base import Contract

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
        except (ImportError, AttributeError, ValueError) as error:
            hint = "module:function, importable from here (PYTHONPATH)"
            raise DuoError("cannot import the detector", got=f"{name}: {error}", hint=hint) from error
        source = inspect.getsourcefile(inspect.unwrap(self.function))
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
        return [Verdict(score >= self.contract.threshold, round(score, 6)) for score in scores]
