"""A diffusers pipeline of any supported family behind the interface of `base.Model`."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import DuoError
from ..records import Quantize, Targets
from . import tokens
from .denoising import dtype_of
from .family import Family
from .interface import (
    Conditioning,
    Guidance,
    Hooks,
    Inverted,
    Moments,
    Run,
    SampleRequest,
    Sampling,
    Switch,
    Tokens,
    Words,
    joined,
)
from .latents import without_overflow
from .parts import fingerprint_of
from .sampling import Denoiser, switched, term_of, watched
from .trajectory import following, from_pictures


class DiffusersModel:
    """A pipeline and its family.

    resolution: height and width of an image; None: the model's own. files: those that the denoiser's weights were read
    from, which the fingerprint is of; None where there are none. quantize: how the denoiser's weights are kept.
    """

    def __init__(
        self,
        pipe: Any,
        kind: Family,
        source: str,
        resolution: int | None = None,
        files: Sequence[Path] | None = None,
        quantize: Quantize = "no",
    ) -> None:
        self.pipe, self.kind, self.family, self.source = pipe, kind, kind.name, source
        self.denoiser_name: str = kind.denoiser
        self.denoiser: nn.Module = getattr(pipe, kind.denoiser)
        self.device = torch.device(pipe.device)
        self.resolution: int = resolution or _own_resolution(pipe, self.denoiser, kind)
        self.noise = kind.noise(pipe, self.resolution)
        precision = str(dtype_of(self.denoiser)).removeprefix("torch.")
        predicts_v = getattr(self.noise, "prediction", None) == "v_prediction"
        told = [f"{self.resolution}px", precision, *["predicts v"] * predicts_v, *[quantize] * (quantize != "no")]
        self.variant = ", ".join(told)
        self.files = sorted(files or [])
        pipe.set_progress_bar_config(disable=True)
        for name in kind.parts:
            if (part := getattr(pipe, name)) is not None:
                part.requires_grad_(False).eval()
        self.switches: list[Switch] = []
        self.hooks: list[Hooks] = []
        self.adapters: dict[str, float] = {}
        self.active: dict[str, float] = {}
        self._to_image: Any = None
        self._fingerprint: str | None = None

    def adapted_layers(self, targets: Targets) -> list[str]:
        """The linear layers of the denoiser whose whole names match the family's pattern of that kind."""
        pattern = re.compile(self.kind.targets[targets])
        # A layer that has an adapter already is a wrapper, of the same name, around the linear one.
        return [
            name
            for name, layer in self.denoiser.named_modules()
            if pattern.fullmatch(name) and isinstance(getattr(layer, "base_layer", layer), nn.Linear)
        ]

    @contextlib.contextmanager
    def denoiser_alone(self) -> Iterator[None]:
        """Inside the block only the denoiser is on the device: text encoders and VAE wait in the CPU's memory."""
        with self._others_on(torch.device("cpu")):
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            yield

    def whole(self) -> AbstractContextManager[None]:
        """Inside the block every part is on the device, also within `denoiser_alone`."""
        return self._others_on(self.device)

    @contextlib.contextmanager
    def _others_on(self, device: torch.device) -> Iterator[None]:
        others = [part for name in self.kind.parts[1:] if (part := getattr(self.pipe, name)) is not None]
        places = [next(part.parameters()).device for part in others]
        try:
            for part in others:
                part.to(device)
            yield
        finally:
            for part, place in zip(others, places, strict=True):
                part.to(place)

    def fingerprint(self) -> str:
        """SHA-256 over the files of the denoiser's weights, first 16 digits: the same in every precision.

        A denoiser that came from no file is hashed as it is, as float32.
        """
        if self._fingerprint is None:
            if self.files:
                self._fingerprint = fingerprint_of(self.files)
                return self._fingerprint
            digest = hashlib.sha256()
            for name, value in sorted(self.denoiser.state_dict().items()):
                if "lora_" not in name:
                    digest.update(name.replace(".base_layer", "").encode())
                    digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    @torch.no_grad()
    def encode_images(self, images: Sequence[Image.Image]) -> Moments:
        """Images → scaled moments of the VAE's posterior, float32, (image, c, h, w)."""
        vae = self.pipe.vae
        pixels = self.pipe.image_processor.preprocess(list(images), height=self.resolution, width=self.resolution)
        with without_overflow(vae):
            return Moments(*self.kind.latents.encode(self.pipe, pixels.to(self.device, vae.dtype)))

    def condition(self, words: Words) -> Conditioning:
        """Words → what the denoiser reads of them, through the text encoders as they stand; longer texts are cut."""
        if self.pipe.text_encoder is None:
            raise DuoError("the text encoders were let go to save memory", hint="a fault of the program: report it")
        if isinstance(words, Tokens):
            return tokens.encode_tokens(self, words)
        if isinstance(words, Inverted):
            return tokens.encode_inverted(self, words)
        with torch.no_grad():
            return self.kind.encode(self.pipe, words)

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Conditioning, network: nn.Module | None = None) -> Tensor:
        """The denoiser's raw output, (b, c, h, w)."""
        used = self.denoiser if network is None else network
        return self.kind.predict(self.pipe, used, noisy, self.noise.network_time(t), conditioning)

    @torch.no_grad()
    def sample(
        self,
        requests: Sequence[SampleRequest],
        *,
        steps: int,
        guidance: float,
        batch: int,
        report: Callable[[int], None] | None = None,
    ) -> list[Image.Image]:
        """One image a request, in order; text to image, from a start image (SDEdit), or along a trajectory."""
        images: dict[int, Image.Image] = {}
        for way in sorted({_way(request) for request in requests}):
            group = [i for i, request in enumerate(requests) if _way(request) == way]
            for first in range(0, len(group), batch):
                part = group[first : first + batch]
                made = self._sample_batch([requests[i] for i in part], steps, guidance)
                images.update(zip(part, made, strict=True))
                if report is not None:
                    report(len(images))
        return [images[i] for i in range(len(requests))]

    def _sample_batch(self, requests: list[SampleRequest], steps: int, scale: float) -> list[Image.Image]:
        guidance = Guidance(self._conditioning(requests), self.condition([r.negative for r in requests]))
        for hook in self.hooks:
            if hook.conditioning is not None:
                guidance = hook.conditioning(requests, guidance)
        run: Run = functools.partial(self._run, steps=steps, scale=scale)
        for hook in self.hooks:
            if hook.resample is not None:
                run = _resampled(hook.resample, steps, scale, run)
        return run(requests, guidance)

    def _run(
        self, requests: Sequence[SampleRequest], guidance: Guidance, *, steps: int, scale: float
    ) -> list[Image.Image]:
        if self.kind.image_to_image is None and requests[0].start is not None:
            requests = from_pictures(self, requests, steps)
        call = self.kind.call(guidance.positive, guidance.negative, scale)
        # One CPU generator an image: its noise depends neither on the batch nor on the device.
        call["generator"] = [torch.Generator().manual_seed(r.seed) for r in requests]
        call["num_inference_steps"] = steps
        if guidance.later is not None:
            if self.kind.padded:  # its pipeline reads which tokens there are at the first step alone
                hint = "a guard that leaves the text as it is on the way"
                raise DuoError("the text cannot change on the way", got=self.kind.title, hint=hint)
            call |= switched(guidance.later, steps)
        hooks = self.hooks if guidance.away is None else [term_of(guidance.away), *self.hooks]
        denoiser = Denoiser(self.denoiser, self._predict_packed, scale, self.kind.output, self.kind.positive_first)
        trajectories = [r.trajectory for r in requests if r.trajectory is not None]
        with (
            following(self, trajectories) as given,
            watched(self.pipe.scheduler, hooks, denoiser) as watch,
            _quiet_overflow(),
        ):
            images = self._call(requests, call | given)
        return [_marked(image, fault) for image, fault in zip(images, watch.faults(len(images)), strict=True)]

    def _predict_packed(self, latents: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
        """The denoiser's output in the pipeline's layout, for latents in that layout."""
        space = self.kind.latents
        unpacked = space.unpack(latents)
        return space.pack(self.kind.predict(self.pipe, self.denoiser, unpacked, time, conditioning))

    def _call(self, requests: Sequence[SampleRequest], call: dict[str, Any]) -> list[Image.Image]:
        """The pipeline's images: from text, or from the images that the requests start from."""
        starts = [r.start.convert("RGB") for r in requests if r.start is not None]
        size = {"height": self.resolution, "width": self.resolution}
        if not starts:
            made: list[Image.Image] = self.pipe(**call, **size).images
            return made
        resized = [s.resize((self.resolution, self.resolution), Image.Resampling.LANCZOS) for s in starts]
        if self.kind.denoiser == "transformer":  # these ask for the size beside the picture
            call |= size
        edited: list[Image.Image] = self._image_to_image()(**call, image=resized, strength=requests[0].strength).images
        return edited

    def _image_to_image(self) -> Any:
        if self._to_image is None:
            import diffusers

            # Shares every part, so an adapter on the denoiser follows and no second model is held. Not `from_pipe`:
            # it casts the shared parts to float32.
            assert self.kind.image_to_image is not None
            maker = getattr(diffusers, self.kind.image_to_image)
            known = {**self.pipe.config, **self.pipe.components}
            self._to_image = maker(**{k: known[k] for k in inspect.signature(maker.__init__).parameters if k in known})
            self._to_image.set_progress_bar_config(disable=True)
        return self._to_image

    def _conditioning(self, requests: list[SampleRequest]) -> Conditioning:
        """What the denoiser reads of each request. Texts are read in one batch, other words one by one."""
        texts = [r.words if isinstance(r.words, str) else "" for r in requests]
        if all(isinstance(r.words, str) and r.conditioning is None for r in requests):
            return self.condition(texts)
        read = self.condition(texts)
        rows = []
        for i, request in enumerate(requests):
            given = request.conditioning
            if given is None and not isinstance(request.words, str):
                with torch.no_grad():
                    given = self.condition(request.words)
            rows.append(read.rows(slice(i, i + 1)) if given is None else given.map(lambda x: x.to(read.text)))
        return joined(rows)


def _way(request: SampleRequest) -> tuple[bool, float, int, int, bool]:
    """How an image is sampled: requests alike in this can share a batch."""
    path = request.trajectory
    along = (0, 0, False) if path is None else (path.steps, path.first, path.mask is not None)
    return (request.start is not None, request.strength, *along)


def _resampled(resample: Callable[[Sampling], list[Image.Image]], steps: int, scale: float, run: Run) -> Run:
    return lambda requests, guidance: resample(Sampling(requests, guidance, steps, scale, run))


@contextlib.contextmanager
def _quiet_overflow() -> Iterator[None]:
    """Numbers that are not finite are marked afterwards; turning them into pixels need not warn as well."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "invalid value encountered in cast", RuntimeWarning)
        yield


def _marked(image: Image.Image, fault: str | None) -> Image.Image:
    """An image, or where it is none a flat one that says why."""
    if fault is None:
        return image
    flat = Image.new("RGB", image.size)
    flat.info["fault"] = fault
    return flat


def _own_resolution(pipe: Any, denoiser: Any, kind: Family) -> int:
    side = denoiser.config.get("sample_size") or getattr(pipe, "default_sample_size", None)
    if side is None:
        assert kind.size is not None
        return kind.size.resolution
    return int(side) * int(pipe.vae_scale_factor)
