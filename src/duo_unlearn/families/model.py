"""A diffusers pipeline of any supported family behind the interface of `base.Model`."""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import DuoError
from ..records import Quantize, Targets
from ..storage.files import sha256_of
from .family import Family
from .interface import Conditioning, Moments, SampleRequest, joined


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
        self.resolution: int = resolution or _own_resolution(pipe, self.denoiser)
        self.noise = kind.noise(pipe, self.resolution)
        precision = str(next(self.denoiser.parameters()).dtype).removeprefix("torch.")
        self.variant = f"{self.resolution}px, {precision}" + ("" if quantize == "no" else f", {quantize}")
        self.files = sorted(files or [])
        pipe.set_progress_bar_config(disable=True)
        for name in kind.parts:
            if (part := getattr(pipe, name)) is not None:
                part.requires_grad_(False).eval()
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
        others = [part for name in self.kind.parts[1:] if (part := getattr(self.pipe, name)) is not None]
        for part in others:
            part.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            yield
        finally:
            for part in others:
                part.to(self.device)

    def fingerprint(self) -> str:
        """SHA-256 over the files of the denoiser's weights, first 16 digits: the same in every precision.

        A denoiser that came from no file is hashed as it is, as float32.
        """
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for file in self.files:
                digest.update(bytes.fromhex(sha256_of(file)))
            if self.files:
                self._fingerprint = digest.hexdigest()[:16]
                return self._fingerprint
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
        with _without_overflow(vae):
            posterior = vae.encode(pixels.to(self.device, vae.dtype)).latent_dist
        shift, scale = vae.config.get("shift_factor") or 0.0, vae.config.scaling_factor
        return Moments((posterior.mean.float() - shift) * scale, posterior.std.float() * scale)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts → what the denoiser reads of them; longer prompts are cut."""
        if self.pipe.text_encoder is None:
            raise DuoError("the text encoders were let go to save memory", hint="a fault of the program: report it")
        return self.kind.encode(self.pipe, prompts)

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
        """One image a request, in order; text to image, or from a start image (SDEdit)."""
        images: dict[int, Image.Image] = {}
        for wanted in (False, True):
            chosen = [i for i, request in enumerate(requests) if (request.start is not None) == wanted]
            for strength in sorted({requests[i].strength for i in chosen}):
                group = [i for i in chosen if requests[i].strength == strength]
                for first in range(0, len(group), batch):
                    part = group[first : first + batch]
                    made = self._sample_batch([requests[i] for i in part], steps, guidance)
                    images.update(zip(part, made, strict=True))
                    if report is not None:
                        report(len(images))
        return [images[i] for i in range(len(requests))]

    def _sample_batch(self, requests: list[SampleRequest], steps: int, guidance: float) -> list[Image.Image]:
        negative = self.encode_prompts([r.negative_prompt for r in requests])
        call = self.kind.call(self._embeddings(requests), negative, guidance)
        # One CPU generator an image: its noise depends neither on the batch nor on the device.
        call["generator"] = [torch.Generator().manual_seed(r.seed) for r in requests]
        call["num_inference_steps"] = steps
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
            maker = getattr(diffusers, self.kind.image_to_image)
            known = {**self.pipe.config, **self.pipe.components}
            self._to_image = maker(**{k: known[k] for k in inspect.signature(maker.__init__).parameters if k in known})
            self._to_image.set_progress_bar_config(disable=True)
        return self._to_image

    def _embeddings(self, requests: list[SampleRequest]) -> Conditioning:
        given = [r.embedding for r in requests]
        if all(embedding is None for embedding in given):
            return self.encode_prompts([r.prompt for r in requests])
        text = self.encode_prompts([r.prompt for r in requests])
        rows = [
            text.rows(slice(i, i + 1)) if e is None else e.map(lambda x: x.to(text.text)) for i, e in enumerate(given)
        ]
        return joined(rows)


def _own_resolution(pipe: Any, denoiser: Any) -> int:
    side = denoiser.config.get("sample_size") or pipe.default_sample_size
    return int(side) * int(pipe.vae_scale_factor)


@contextlib.contextmanager
def _without_overflow(vae: Any) -> Iterator[None]:
    """The VAE in float32 inside the block, when it is in fp16 and says that it overflows there (SDXL's)."""
    upcast = vae.dtype == torch.float16 and vae.config.get("force_upcast")
    if upcast:
        vae.to(torch.float32)
    try:
        yield
    finally:
        if upcast:
            vae.to(torch.float16)  # back to what it was, bit for bit
