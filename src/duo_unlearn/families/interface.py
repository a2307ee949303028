"""The interface of a model family: everything the stages need of a text-to-image model, and no more.

Noise and timesteps are arguments, never drawn inside, so a pair shares them and a test fixes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor, nn

from ..records import Targets
from .conditioning import Conditioning as Conditioning
from .conditioning import joined as joined
from .noise import NoiseProcess

if TYPE_CHECKING:
    from .family import Family


class Moments(NamedTuple):
    """The VAE's posterior of a batch of images, scaled as the denoiser expects: mean and std, (image, c, h, w)."""

    mean: Tensor
    std: Tensor


class Tokens(NamedTuple):
    """Prompts as token ids, start to padding, (prompt, token).

    rows: input embeddings, (prompt, n, width), that stand in place of those of tokens first … first + n − 1; padding
    stays. The conditioning is differentiable in them.
    """

    ids: Tensor
    rows: Tensor | None = None
    first: int = 1


class Inverted(NamedTuple):
    """Texts in which `tokens.PLACEHOLDER` stands for a free vector, (width,).

    The conditioning is differentiable in the vector.
    """

    texts: Sequence[str]
    vector: Tensor


Words = Sequence[str] | Tokens | Inverted
"""What a model can be asked with: texts, token ids, or texts with a free vector."""
PromptWords = str | Tokens | Inverted
"""The same of one prompt."""


class Trajectory(NamedTuple):
    """A deterministic path (`families.ode`) that an image follows from given latents on, in place of drawn noise.

    latents: (c, h, w), before step `first` of `steps`. mask: (c or 1, h, w), 1 where they are drawn; elsewhere they are
    `known`, clean latents, (c, h, w), noised by `latents` to each step's level. None: all are drawn. A trajectory with
    a mask starts at pure noise.
    """

    latents: Tensor
    steps: int
    first: int = 0
    known: Tensor | None = None
    mask: Tensor | None = None


class SampleRequest(NamedTuple):
    """One image to sample. seed decides its noise alone, so a result does not depend on the batch it ran in.

    words: a text, or token ids or an inverted token of one prompt. negative: the negative prompt. conditioning: what
    `Model.condition` gave for the words, where it is at hand. start, strength: an image to start from (SDEdit), and how
    much of the noise schedule is run, 0 to 1. trajectory: a path to follow instead, in its own number of steps.
    """

    words: PromptWords
    seed: int
    negative: str = ""
    conditioning: Conditioning | None = None
    start: Image.Image | None = None
    strength: float = 1.0
    trajectory: Trajectory | None = None


class Later(NamedTuple):
    """Text that takes the prompts' place on the way, (prompt, token, width).

    share: of the steps of a whole sampling, (prompt,). The first text is read in the steps i ≤ share × steps. i is 0 at
    the first step that is taken, also where an image starts from a picture, part way.
    """

    text: Tensor
    share: Tensor


class Away(NamedTuple):
    """A further term of guidance, which goes away from a conditioning (prompt, …): − scale · weight (ε_a − ε_n).

    weight: (prompt,), as a share of the scale of guidance; 0 leaves a prompt's guidance as it is, bit for bit.
    """

    conditioning: Conditioning
    weight: Tensor


class Guidance(NamedTuple):
    """What guidance contrasts: the conditioning of the prompts, and that of their negatives, each (prompt, …).

    later: what the prompts read further on; None: the same. away: a further term, which costs a row of the denoiser an
    image and step; None: there is none.
    """

    positive: Conditioning
    negative: Conditioning
    later: Later | None = None
    away: Away | None = None


class Branches(NamedTuple):
    """The predictions that guidance contrasts at a step, each (image, …): ε_n + scale · (ε_c − ε_n).

    predict(conditioning): the prediction at this step under another conditioning of as many prompts. It costs a row of
    the denoiser an image.
    """

    positive: Tensor
    negative: Tensor
    scale: float
    predict: Callable[[Conditioning], Tensor]


class Step(NamedTuple):
    """One sampling step as a guard sees it. latents: x_t, in the pipeline's layout; number: from 0, of `steps`.

    branches: None where there is no negative branch: guidance is an input, or its scale is at most 1. memory: what a
    guard keeps from one step of a sampling to the next, under its name.
    """

    latents: Tensor
    number: int
    steps: int
    branches: Branches | None
    memory: dict[str, Tensor]


Run = Callable[[Sequence[SampleRequest], Guidance], list[Image.Image]]
"""Samples one image a request under a guidance of as many prompts."""


class Sampling(NamedTuple):
    """A batch that is about to be sampled. scale: of guidance. run: samples, under the guards' other hooks."""

    requests: Sequence[SampleRequest]
    guidance: Guidance
    steps: int
    scale: float
    run: Run


class Hooks(NamedTuple):
    """What a guard does while images are sampled. A hook that is None leaves everything as it is, bit for bit.

    conditioning(requests, guidance): the guidance to use. prediction(step, guided): the guided prediction to use.
    clean(step, x̂0): the estimate of the clean latents to use. resample(sampling): the batch's images, in the place of
    sampling.run. passes(images): whether each image may be shown.
    """

    conditioning: Callable[[Sequence[SampleRequest], Guidance], Guidance] | None = None
    prediction: Callable[[Step, Tensor], Tensor] | None = None
    clean: Callable[[Step, Tensor], Tensor] | None = None
    resample: Callable[[Sampling], list[Image.Image]] | None = None
    passes: Callable[[Sequence[Image.Image]], list[bool]] | None = None


class Switch(NamedTuple):
    """An edit that is applied to a model, which can be switched off and on again, and be taken away.

    parts: the pipeline's parts that it changes.
    """

    name: str
    parts: tuple[str, ...]
    on: Callable[[], None]
    off: Callable[[], None]


class Model(Protocol):
    """A loaded text-to-image model."""

    family: str
    source: str
    kind: Family
    """The facts of its family."""
    device: torch.device
    denoiser: nn.Module
    """The network that an adapter is attached to."""
    denoiser_name: str
    """The name of that network in the pipeline, "unet" or "transformer": the prefix of an adapter's keys."""
    noise: NoiseProcess
    resolution: int
    """Height and width of an image, pixels."""
    variant: str
    """What beside the weights decides its output: resolution, precision, whether it predicts v, quantisation."""
    pipe: Any
    """The diffusers pipeline, for saving and loading adapters."""
    switches: list[Switch]
    """The edits that are applied now, in order."""
    adapters: dict[str, float]
    """The LoRA adapters that act now, by PEFT's names, and their strengths."""
    active: dict[str, float]
    """The adapters that PEFT was told last to use; they may be switched off all the same."""
    hooks: list[Hooks]
    """The guards that watch over `sample` now, in order."""

    def adapted_layers(self, targets: Targets) -> list[str]:
        """Names of the denoiser's linear layers that an adapter is put on."""
        ...

    def whole(self) -> AbstractContextManager[None]:
        """Inside the block every part is on the device, also within `denoiser_alone`."""
        ...

    def denoiser_alone(self) -> AbstractContextManager[None]:
        """Inside the block only the denoiser is on the device: text encoders and VAE wait in the CPU's memory."""
        ...

    def fingerprint(self) -> str:
        """SHA-256 over the denoiser's base weights, first 16 digits: which base an adapter was made for."""
        ...

    def encode_images(self, images: Sequence[Image.Image]) -> Moments:
        """Images (RGB, any size; resized to `resolution`) → scaled latent moments, float32."""
        ...

    def condition(self, words: Words) -> Conditioning:
        """Words → what `predict` reads: the only way from one to the other, through the text encoders as they stand.

        The empty prompt is what guidance contrasts with. Longer texts are cut.
        """
        ...

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning, network: nn.Module | None = None) -> Tensor:
        """The denoiser's raw output, (b, c, h, w), for latents (b, c, h, w), timesteps (b,), conditioning of b prompts.

        network: the denoiser as wrapped for several processes; None: the denoiser itself.
        """
        ...

    def sample(
        self,
        requests: Sequence[SampleRequest],
        *,
        steps: int,
        guidance: float,
        batch: int,
        report: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """One image a request, in order. report(done) is called after each batch.

        An image whose latents were not finite is flat, and says so in `info["fault"]`: it is no picture.
        """
        ...
