"""What sets a family of models apart: one record of facts and functions, which can be read without torch.

A family is a file with a record, and a line in `registry`. A family's file imports torch inside its functions only, so
that `duo check` and `duo models` read its facts in no time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from ..records import Targets
from .latents import PLAIN, LatentSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .conditioning import Conditioning
    from .noise import NoiseProcess


MOST_STEPS: Final = 500
"""Sampling steps at most. With more, schedulers that space 1,000 timesteps evenly leave out the noisiest or fail."""
ONE_BY_ONE: Final = 256
"""Pictures with more pixels of a side go through the VAE one at a time."""


class Size(NamedTuple):
    """How large a family's published model is, for `settings.needs`.

    denoiser, others: millions of parameters of the denoiser, and of the other parts together. adapter: millions of
    parameters of an adapter of rank 32, on self-attention and on all attention. resolution: pixels of an image's side.
    row: GB that one row of a bf16 training pass keeps at that resolution, plainly and with gradient checkpointing.
    held: GB that are held at once there, in bf16 and without gradients, by one row of the denoiser, by the decoding of
    one image and by its encoding. flops: 10¹² operations of one row's forward pass at that resolution. Of these,
    `benchmarks/published_memory.py` counts the bytes.
    """

    denoiser: float
    others: float
    adapter: tuple[float, float]
    resolution: int
    row: tuple[float, float]
    held: tuple[float, float, float]
    flops: float


def _first(output: Any) -> Tensor:
    rows: Tensor = output[0]
    return rows


def _linear(positive: Tensor, negative: Tensor, scale: float) -> Tensor:
    return negative + scale * (positive - negative)


@dataclass(frozen=True, kw_only=True, eq=False)
class Family:
    """All that the package knows of a family of diffusers pipelines.

    A part is an attribute of the pipeline, and a folder of a model on disk. Functions take the pipeline first.
    """

    name: str
    title: str
    """The family as people call it."""
    needs: str
    """What a user should know before choosing it: `duo models` prints this."""

    pipeline: str
    """The diffusers class that makes an image from words."""
    image_to_image: str | None
    """The diffusers class that starts from an image; None: diffusers has none, so `trajectory.from_pictures` does."""
    denoiser: Literal["unet", "transformer"]
    """The part that an adapter is attached to, and the prefix of the adapter's keys."""
    denoiser_class: str
    """The denoiser's diffusers class. Another one would be code that the objective was never checked with."""
    text: tuple[str, ...]
    """The text encoders, in the pipeline's order."""
    tokenizers: tuple[str, ...]
    """The tokenizers, in the pipeline's order."""
    optional: tuple[str, ...] = ()
    """Those text encoders and tokenizers that a model may lack."""
    load_options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of diffusers' `from_pretrained` and `from_single_file` that leave out what is never used."""
    targets: Mapping[Targets, str]
    """A regular expression a kind of target, which the whole name of a layer must match to get an adapter."""

    hub_words: tuple[str, ...]
    """Words by which a hub id is recognised. The longest word that occurs decides; the empty word is in every id."""
    checkpoint_names: tuple[str, ...] = ()
    """Tensor names by which a model in one file is recognised, one is enough; none: diffusers loads no such file."""
    text_width: int | None = None
    """Width of the text that the denoiser reads, where families share a pipeline class; None: any other width."""

    text_tokens: int | None = None
    """How many tokens of a prompt its pipeline is asked to read; None: as many as its tokenizer says."""
    token_encoders: tuple[tuple[str, str], ...] = ()
    """The (tokenizer, text encoder) pairs that a search over CLIP's tokens reaches; none where `reader` reads too."""
    reader: str = "T5"
    """The encoder beside CLIP, or in its place, whose tokens no search writes."""
    padded: bool = False
    """Whether rows of zeros in the text are padding that the denoiser does not see (`llm`)."""
    guidance_is_input: bool = False
    """Whether the denoiser reads the guidance scale itself, in one pass; negative prompts then have no effect."""
    unguided: Callable[[Any], bool] = lambda _pipe: False
    """unguided(pipe) → whether its pipeline asks for the prompt alone, whatever the scale: a distilled model's."""
    guidance: float = 7.5
    """The scale of pairs and of the evaluation where none is given: the default of its diffusers pipeline."""
    quantizable: bool = False
    """Whether the frozen denoiser can be kept in 8 bits."""
    relearning_rate: float = 1e-5
    """The learning rate at which the attack `relearning` fine-tunes the denoiser."""

    size: Size | None = None
    """How large the published model is; None where its needs are not worth a word."""
    hub_resolutions: Mapping[str, int] = field(default_factory=dict)
    """Pixels of an image's side, by the ending of a hub id, of published models that differ from `size`."""

    features: str = "effnet-lite0"
    """The extractor of `features.registry` that what is preserved is measured with."""
    clip: str = "clip-vit-large-patch14"
    """The CLIP of `features.registry` that images are compared with texts by."""
    clip_reads_prompts: bool = False
    """Whether the one text encoder is that CLIP's text tower, so that prompts and images lie in one space."""
    clip_success: float | None = 0.26
    """The CLIP score from which an image shows its prompt (SneakyPrompt's 0.26, on the scale of CLIP ViT-L/14).

    None: this CLIP's scale has no published value, so the original model's own image sets it.
    """

    noise: Callable[[Any, int], NoiseProcess]
    """noise(pipe, resolution) → the noise process."""
    encode: Callable[[Any, Sequence[str]], Conditioning]
    """encode(pipe, prompts) → what the denoiser reads of them."""
    predict: Callable[[Any, nn.Module, Tensor, Tensor, Conditioning], Tensor]
    """predict(pipe, network, noisy, time, conditioning) → the raw output; time as the process's `network_time`."""
    call: Callable[[Conditioning, Conditioning, float], dict[str, Any]]
    """call(conditioning, negative, guidance) → arguments of the pipeline's call."""
    architecture: Callable[[Any], str]
    """architecture(pipe) → its id in the SAI Model Spec, as sd-scripts and musubi-tuner write it for other tools."""
    latents: LatentSpace = PLAIN
    """The shape, scale and layout of its latents."""
    output: Callable[[Any], Tensor] = _first
    """output(what the network returned) → the raw output, in the pipeline's layout."""
    positive_first: bool = False
    """Whether the pipeline asks for the prompts' rows before the negative ones, in one pass or in two."""
    guide: Callable[[Tensor, Tensor, float], Tensor] = _linear
    """guide(positive, negative, scale) → the guided output, as the pipeline mixes it, from outputs (b, c, h, w)."""

    @property
    def why_no_negative(self) -> str | None:
        """Why no model of it has a negative branch, or None."""
        return f"{self.title} has no negative branch: guidance is an input there" if self.guidance_is_input else None

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that have weights, the denoiser first."""
        return (self.denoiser, "vae", *self.text)

    @property
    def reads_clip_alone(self) -> bool:
        """Whether prompts are CLIP's tokens and nothing else, so that a search over these reaches all of a prompt."""
        return bool(self.token_encoders)
