"""Whether an export gives the same images as the edit on its base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from ..concepts.prompt_sets import Counts, prompt_sets
from ..concepts.spec import Concept
from ..errors import DuoError
from ..families.interface import Model, SampleRequest
from ..storage.files import seed_of
from ..storage.pictures import image_fault

TOLERANCE: Final = 1.0
"""Mean absolute difference of two images, in levels of 255, up to which they count as the same (float32)."""
HALF_TOLERANCE: Final = 4.0
"""The same in half precision, where merging rounds the weights."""
COMPARED: Final = 4
"""How many images are compared."""


def compared_requests(concept: Concept, seed: int) -> list[SampleRequest]:
    """The images to compare: half of them are asked for the concept, and half must go on working."""
    sets = prompt_sets(concept, Counts(COMPARED, COMPARED, 0, 0), seed)
    texts = [
        prompt.text
        for kind in ("attack", "keep")
        for chosen in sets
        if chosen.kind == kind
        for prompt in chosen.prompts
    ]
    few = (texts[: COMPARED // 2] + texts[-COMPARED // 2 :]) or ["a picture"]
    return [SampleRequest(text, seed_of(seed, "export", i)) for i, text in enumerate(few)]


def pictures(
    model: Model, requests: Sequence[SampleRequest], *, steps: int, guidance: float, what: str
) -> list[Image.Image]:
    """Images of a model, in order. One that is flat or not finite is a DuoError: two of them would look the same.

    what: names the model in the error.
    """
    images = model.sample(requests, steps=steps, guidance=guidance, batch=1)
    for request, image in zip(requests, images, strict=True):
        if (fault := image_fault(image)) is not None:
            hint = "look at it with `duo sample`; make the edit again where its numbers are broken"
            raise DuoError(f"{what} gives no picture", got=f"{fault}, for {request.words!r}", hint=hint)
    return images


def check_same(first: Sequence[Image.Image], second: Sequence[Image.Image], allowed: float) -> float:
    """The largest mean difference of two images of a pair, in levels of 255. More than `allowed` is a DuoError."""
    pairs = zip(first, second, strict=True)
    largest = max(float(np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean()) for a, b in pairs)
    if not largest <= allowed:
        got = f"a mean difference of {largest:.2f} of 255, allowed {allowed:g}"
        raise DuoError("the export does not give the same images", got=got, hint="report it with the model's name")
    return largest
