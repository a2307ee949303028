"""Textual inversion on the mini model: it fits the images, and changes nothing but its vector."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Inverted, Model, Moments
from duo_unlearn.families.inversion import invert
from duo_unlearn.families.load import load_model
from duo_unlearn.families.tokens import PLACEHOLDER, initial_vector
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import SUBJECTS, random_scene


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


@pytest.fixture(scope="module")
def moments(model: Model) -> Moments:
    rng = random.Random(0)
    scenes = [random_scene(rng, subjects=SUBJECTS, items=("sword",)) for _ in range(8)]
    return model.encode_images([draw(scene) for scene in scenes])


def error_with(model: Model, moments: Moments, vector: Tensor) -> float:
    """The loss that inversion lowers, on fixed noise."""
    generator = torch.Generator().manual_seed(5)
    eps = torch.randn(moments.mean.shape, generator=generator)
    t = torch.linspace(300, 900, len(eps)).long()
    conditioning = model.condition(Inverted([f"a picture of {PLACEHOLDER}"], vector)).repeat(len(eps))
    with torch.no_grad():
        predicted = model.predict(model.noise.add_noise(moments.mean, eps, t), t, conditioning)
    return float((predicted - eps).square().mean())


@pytest.mark.slow
def test_inversion_fits_the_images_repeats_itself_and_leaves_the_model_alone(model: Model, moments: Moments) -> None:
    before = {name: value.clone() for name, value in model.pipe.text_encoder.state_dict().items()}
    vector = invert(model, moments, steps=25, batch=4, seed=0, lr=2e-2, quiet=True)
    assert error_with(model, moments, vector) < error_with(model, moments, initial_vector(model, "picture"))
    assert torch.equal(vector, invert(model, moments, steps=25, batch=4, seed=0, lr=2e-2, quiet=True))
    after = model.pipe.text_encoder.state_dict()
    assert all(torch.equal(before[name], value) for name, value in after.items())


def test_the_token_stands_in_front_of_each_prompt(model: Model) -> None:
    vector = initial_vector(model, "sword")
    prompts = ["a red knight in the snow", "a boat"]
    read = model.condition(Inverted([f"{PLACEHOLDER} {prompt}" for prompt in prompts], vector)).text
    torch.testing.assert_close(read, model.condition([f"sword {prompt}" for prompt in prompts]).text)


def test_an_inversion_that_breaks_is_an_error_not_a_defence(model: Model, moments: Moments) -> None:
    broken = Moments(moments.mean * float("nan"), moments.std)
    with pytest.raises(DuoError, match="step 1 of the inversion was not finite"):
        invert(model, broken, steps=2, batch=2, seed=0, quiet=True)
