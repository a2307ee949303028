"""Sampling with schedulers that draw noise at every step: an image is a function of its request's seed all the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler, LCMScheduler

from duo_unlearn.families.interface import SampleRequest
from duo_unlearn.families.load import load_model

from ..slow import slow

CPU = torch.device("cpu")
REQUESTS = [SampleRequest("a red knight with a flower in the snow", 3), SampleRequest("a blue boat at night", 4)]


@pytest.mark.parametrize("scheduler", [EulerAncestralDiscreteScheduler, *slow([LCMScheduler])])
def test_noise_between_the_steps_is_the_seeds_own(scheduler: type) -> None:
    model = load_model("mini", CPU)
    model.pipe.scheduler = scheduler.from_config(model.pipe.scheduler.config)  # type: ignore[attr-defined]

    def pixels(batch: int) -> np.ndarray:
        return np.stack(
            [np.asarray(image) for image in model.sample(REQUESTS, steps=2, guidance=5.0, batch=batch)]
        ).astype(int)

    first = pixels(2)
    torch.manual_seed(1)  # the global generator has no part in it
    assert np.array_equal(pixels(2), first)
    assert np.abs(pixels(1) - first).max() <= 1
