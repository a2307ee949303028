"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a UNet that predicts ε or v. The mini model is one of these."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor, nn

from ..storage import sha256_of
from .base import Moments, SampleRequest
from .noise import NoiseProcess

TARGETS: Final = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
"""Self-attention only: with the empty prompt in training, the change acts for every prompt (authors' scripts)."""


class StableDiffusion:
    """A StableDiffusionPipeline behind the family interface (`families.base.Model`)."""

    def __init__(self, pipe: Any, family: str, source: str) -> None:
        self.pipe, self.family, self.source = pipe, family, source
        self.denoiser: nn.Module = pipe.unet
        self.device = torch.device(pipe.device)
        self.noise = NoiseProcess(pipe.scheduler.alphas_cumprod, pipe.scheduler.config.prediction_type)
        self.adapter_targets: tuple[str, ...] = TARGETS
        self.resolution: int = pipe.unet.config.sample_size * pipe.vae_scale_factor
        pipe.set_progress_bar_config(disable=True)
        for part in (pipe.unet, pipe.vae, pipe.text_encoder):
            part.requires_grad_(False).eval()
        self._to_image: Any = None
        self._fingerprint: str | None = None

    def fingerprint(self) -> str:
        """SHA-256 over the denoiser's weight files, first 16 digits: the same in every precision it is loaded in.

        A denoiser that came from no file is hashed as float32.
        """
        if self._fingerprint is None:
            digest = hashlib.sha256()
            files = sorted(Path(self.pipe.unet.config.get("_name_or_path") or "/nowhere").glob("*.safetensors"))
            for file in files:
                digest.update(bytes.fromhex(sha256_of(file)))
            if files:
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
        """Images → scaled moments of the VAE's posterior, float32, (image, 4, h, w)."""
        pixels = self.pipe.image_processor.preprocess(list(images), height=self.resolution, width=self.resolution)
        posterior = self.pipe.vae.encode(pixels.to(self.device, self.pipe.vae.dtype)).latent_dist
        scale = self.pipe.vae.config.scaling_factor
        return Moments(posterior.mean.float() * scale, posterior.std.float() * scale)

    @torch.no_grad()
    def encode_prompts(self, prompts: Sequence[str]) -> Tensor:
        """Prompts → the text encoder's last hidden state, (prompt, token, width); longer prompts are cut."""
        embedded: Tensor = self.pipe.encode_prompt(list(prompts), self.device, 1, False)[0]
        return embedded

    def predict(self, noisy: Tensor, t: Tensor, conditioning: Tensor, network: nn.Module | None = None) -> Tensor:
        """The UNet's raw output, (b, 4, h, w)."""
        unet = self.denoiser if network is None else network
        output: Tensor = unet(noisy, t, encoder_hidden_states=conditioning, return_dict=False)[0]
        return output

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
        # One CPU generator an image: its noise depends neither on the batch nor on the device.
        call: dict[str, Any] = {
            "prompt_embeds": self._embeddings(requests),
            "negative_prompt_embeds": self.encode_prompts([r.negative_prompt for r in requests]),
            "generator": [torch.Generator().manual_seed(r.seed) for r in requests],
            "num_inference_steps": steps,
            "guidance_scale": guidance,
        }
        starts = [r.start.convert("RGB") for r in requests if r.start is not None]
        if not starts:
            size = {"height": self.resolution, "width": self.resolution}
            made: list[Image.Image] = self.pipe(**call, **size).images
            return made
        resized = [s.resize((self.resolution, self.resolution), Image.Resampling.LANCZOS) for s in starts]
        edited: list[Image.Image] = self._image_to_image()(**call, image=resized, strength=requests[0].strength).images
        return edited

    def _image_to_image(self) -> Any:
        if self._to_image is None:
            from diffusers import StableDiffusionImg2ImgPipeline

            # Shares every part, so an adapter on the UNet follows and no second model is held.
            parts = {**self.pipe.components, "requires_safety_checker": False}
            self._to_image = StableDiffusionImg2ImgPipeline(**parts)
            self._to_image.set_progress_bar_config(disable=True)
        return self._to_image

    def _embeddings(self, requests: list[SampleRequest]) -> Tensor:
        text = self.encode_prompts([r.prompt for r in requests])
        rows = [row if r.embedding is None else r.embedding.to(row) for r, row in zip(requests, text, strict=True)]
        return torch.stack(rows)


def seed_of(*parts: object) -> int:
    """A seed below 2³¹ that is a function of its parts, the same on every machine."""
    return zlib.crc32("/".join(map(str, parts)).encode()) & 0x7FFFFFFF
