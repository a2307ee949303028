"""What sets a family apart: a record of names and functions, which `model.DiffusersModel` puts behind the interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from ..records import Targets
from .interface import Conditioning
from .noise import NoiseProcess

Encode = Callable[[Any, Sequence[str]], Conditioning]
Predict = Callable[[Any, nn.Module, Tensor, Tensor, Conditioning], Tensor]
Call = Callable[[Conditioning, Conditioning, float], dict[str, Any]]


class Family(NamedTuple):
    """A family of diffusers pipelines.

    pipeline, image_to_image: names of diffusers classes. denoiser: the pipeline's attribute, and an adapter's prefix.
    text: the text encoders' attributes; optional: those of them that a model may lack. targets: of each kind
    (`records.Targets`), a regular expression that a layer's whole name must match.
    noise(pipe, resolution): the noise process. encode(pipe, prompts). predict(pipe, network, noisy, time,
    conditioning), time as the process's `network_time`. call(conditioning, negative, guidance): arguments of the
    pipeline's call. needs: what a user should know, for `duo models`.
    """

    name: str
    title: str
    pipeline: str
    image_to_image: str
    denoiser: Literal["unet", "transformer"]
    text: tuple[str, ...]
    optional: tuple[str, ...]
    targets: dict[Targets, str]
    noise: Callable[[Any, int], NoiseProcess]
    encode: Encode
    predict: Predict
    call: Call
    needs: str

    @property
    def parts(self) -> tuple[str, ...]:
        """The pipeline's attributes that have weights."""
        return (self.denoiser, "vae", *self.text)
