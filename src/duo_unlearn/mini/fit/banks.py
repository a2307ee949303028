"""What stages hand on to later ones: the training scenes' latents, and pictures that the finished denoiser drew."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...progress import progress
from ...storage.files import read_json, read_tensors, write_json, write_tensors
from ..world.captions import caption
from ..world.drawing import draw_batch
from ..world.scenes import Scene
from .batches import Sampled, training_scene, training_scenes
from .damage import to_pixels
from .feed import in_order
from .loop import autocast
from .sampling import sample_all

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

_BATCH = 128


class Latents:
    """The training scenes' latents: made once by the finished VAE, kept in a file."""

    def __init__(
        self, folder: Path, seed: int, count: int, vae: AutoencoderKL, device: torch.device, quiet: bool
    ) -> None:
        self.path, self.facts = folder / "latents.safetensors", folder / "latents.json"
        self.vae, self.device, self.quiet = vae, device, quiet
        self.scenes = training_scenes(random.Random(f"{seed}/latents"), count)

    def _raw(self) -> Tensor:
        if self.path.exists():
            return read_tensors(self.path)[0]["moments"]
        parts = [self.scenes[start : start + _BATCH] for start in range(0, len(self.scenes), _BATCH)]
        found = []
        with progress("mini: latents", len(parts), quiet=self.quiet) as report, torch.no_grad():
            for done, pictures in enumerate(in_order(_pictures, parts), 1):
                with autocast(self.device):
                    posterior = self.vae.encode(to_pixels(pictures.to(self.device))).latent_dist
                found.append(torch.cat([posterior.mean, posterior.std], dim=1).half().cpu())
                report(done)
        raw = torch.cat(found)
        write_tensors(self.path, {"moments": raw})
        return raw

    def scaling_factor(self) -> float:
        """One over the standard deviation of the latents' means, four digits."""
        if not self.facts.exists():
            write_json(self.facts, {"scaling_factor": round(1 / self._raw()[:, :4].float().std().item(), 4)})
        return float(read_json(self.facts)["scaling_factor"])

    def moments(self) -> Tensor:
        """Scaled mean and standard deviation, (scene, 8, 16, 16), in fp16 on the VAE's device."""
        return (self._raw().to(self.device).float() * self.scaling_factor()).half()


def _pictures(scenes: list[Scene]) -> Tensor:
    return torch.from_numpy(draw_batch(scenes))


def samples_of(pipe: Any, folder: Path, judge: str, seed: int, count: int, *, quiet: bool) -> Sampled:
    """Pictures that a judge is trained on: `count` of training scenes, asked for in all wordings that name the item."""
    rng = random.Random(f"{seed}/samples/{judge}")
    asked: list[tuple[Scene, str, int]] = []
    while len(asked) < count:
        scene = training_scene(rng)
        said = caption(scene, rng, keep_all=True)
        if said.form != "unsaid":
            asked.append((scene, said.text, rng.getrandbits(31)))
    path = folder / f"{judge}.samples.safetensors"
    if not path.exists():
        _, prompts, seeds = zip(*asked, strict=True)
        with progress(f"mini: samples for {judge}", count, quiet=quiet) as report:
            pixels = sample_all(pipe, prompts, seeds, 2 * _BATCH, report)
        pictures = pixels.add(1).mul(127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
        write_tensors(path, {"pictures": pictures.contiguous()})
    return Sampled(read_tensors(path)[0]["pictures"], [scene for scene, _, _ in asked])
