"""`duo mini fit`: train every part of the mini model from a seed, stage by stage; a finished stage is not run again."""

from __future__ import annotations

import dataclasses
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from ...errors import DuoError
from ...progress import progress
from ...storage.files import read_json, write_json, write_tensors
from ..model.judge_net import JudgeNet
from ..model.parts import CONTEXT, build_clip, build_scheduler, build_tokenizer, build_unet, build_vae
from . import stages
from .loop import Schedule, autocast, train_stage

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

TOKENIZER: Final = {"captions": 18_000, "vocabulary": 450}
"""Captions it reads, and tokens at most (merges stop when every word is one token)."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the code."""

    seed: int = 0
    clip: Schedule = Schedule(steps=1600, lr=8e-4, weight_decay=0.05, warmup=150)
    vae: Schedule = Schedule(steps=2200, lr=2e-3, hold=0.4)
    judge: Schedule = Schedule(steps=700, lr=2e-3, hold=0.4)
    unet: Schedule = Schedule(steps=5200, lr=1.5e-3, warmup=200, hold=0.45, ema=0.999)
    scenes: int = 24_000
    """Scenes whose latents the denoiser is trained on."""

    def shortened(self, factor: float) -> Recipe:
        """The same recipe with every count multiplied: to try the code, not to train a model."""

        def cut(schedule: Schedule) -> Schedule:
            steps = max(2, round(schedule.steps * factor))
            return schedule._replace(steps=steps, warmup=min(schedule.warmup, steps // 2))

        return dataclasses.replace(
            self,
            clip=cut(self.clip),
            vae=cut(self.vae),
            judge=cut(self.judge),
            unet=cut(self.unet),
            scenes=max(64, round(self.scenes * factor)),
        )


def fit(folder: Path, recipe: Recipe, *, device: torch.device | None = None, quiet: bool = False) -> Path:
    """Train all parts in `folder`; gives the folder of the finished model, in diffusers' format, fp16.

    The same command resumes: finished stages are read, the one under way goes on from its checkpoint. A folder that
    holds another recipe's stages is refused.
    """
    from transformers import CLIPTokenizer

    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _same_recipe(folder, recipe)
    parts = _Parts(folder, recipe, device, quiet)
    tokenizer_folder = folder / "tokenizer"
    if (tokenizer_folder / "tokenizer_config.json").exists():
        tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder, model_max_length=CONTEXT)
    else:
        tokenizer = build_tokenizer(tokenizer_folder, seed=recipe.seed, **TOKENIZER)
    _seed(recipe, 0)
    clip = build_clip(tokenizer).to(device)
    probed = stages.ClipWithProbes(clip).to(device)
    parts.train("clip", probed, lambda: stages.clip_loss(probed, tokenizer, device), recipe.clip, keep=clip)
    _seed(recipe, 1)
    vae = build_vae().to(device)
    parts.train("vae", vae, lambda: stages.vae_loss(vae, device), recipe.vae)
    _seed(recipe, 2)
    judge = JudgeNet().to(device)
    parts.train("judge", judge, lambda: stages.judge_loss(judge, vae, device), recipe.judge)
    text_encoder = text_tower(clip).to(device)
    _seed(recipe, 3)
    unet = build_unet().to(device)
    latents = Latents(folder / "latents.safetensors", recipe, vae, device, quiet)
    parts.train(
        "unet",
        unet,
        lambda: stages.unet_loss(
            unet,
            text_encoder,
            tokenizer,
            latents.scenes,
            latents.moments(),
            build_scheduler().alphas_cumprod,
            device,
        ),
        recipe.unet,
    )
    vae.register_to_config(scaling_factor=latents.scaling_factor())
    return _assemble(folder / "model", tokenizer, text_encoder, vae, unet, clip, judge)


def text_tower(clip: CLIPModel) -> CLIPTextModel:
    """A CLIPTextModel with the weights of a CLIP model's text tower: what a Stable Diffusion pipeline holds."""
    from transformers import CLIPTextModel

    encoder = CLIPTextModel(clip.config.text_config)
    weights = {k.removeprefix("text_model."): v for k, v in clip.state_dict().items() if k.startswith("text_model.")}
    expected = encoder.state_dict()
    prefix = "text_model." if any(k.startswith("text_model.") for k in expected) else ""
    encoder.load_state_dict({k: weights[k.removeprefix(prefix)] for k in expected})
    encoder.eval()
    return encoder.requires_grad_(False)


class _Parts:
    """Trains a part once: its finished weights are a file, and later calls read it."""

    def __init__(self, folder: Path, recipe: Recipe, device: torch.device, quiet: bool) -> None:
        self.folder, self.recipe, self.device, self.quiet = folder, recipe, device, quiet

    def train(
        self,
        stage: str,
        module: nn.Module,
        make_loss: object,
        schedule: Schedule,
        keep: nn.Module | None = None,
    ) -> None:
        from ...storage.files import read_tensors

        kept = keep if keep is not None else module
        path = self.folder / f"{stage}.safetensors"
        if path.exists():
            kept.load_state_dict(read_tensors(path)[0])
        else:
            assert callable(make_loss)
            loss = train_stage(
                stage, module, make_loss(), schedule,
                folder=self.folder, seed=self.recipe.seed, device=self.device, quiet=self.quiet,
            )  # fmt: skip
            write_tensors(path, {k: v.clone() for k, v in kept.state_dict().items()}, {"loss": repr(loss)})
            (self.folder / f"{stage}.checkpoint.safetensors").unlink(missing_ok=True)
        kept.eval()
        kept.requires_grad_(False)


def _seed(recipe: Recipe, index: int) -> None:
    """Initial weights depend on the seed and the part alone, not on what was built before."""
    torch.manual_seed(recipe.seed * 10 + index)


class Latents:
    """The training scenes' latents: made once by the finished VAE, kept in a file."""

    def __init__(self, path: Path, recipe: Recipe, vae: AutoencoderKL, device: torch.device, quiet: bool) -> None:
        self.path, self.vae, self.device, self.quiet = path, vae, device, quiet
        rng = random.Random(f"{recipe.seed}/latents")
        # The erasable items twice as often as chance: an eraser can only be shown on what the model draws well.
        items = ("none", "sword", "sword", "wand", "flower", "balloon", "balloon", "book")
        self.scenes = stages.training_scenes(rng, recipe.scenes, items)

    def _raw(self) -> Tensor:
        from ...storage.files import read_tensors

        if self.path.exists():
            return read_tensors(self.path)[0]["moments"].float()
        batch, found = 128, []
        with progress("mini: latents", len(self.scenes), quiet=self.quiet) as report, torch.no_grad():
            for start in range(0, len(self.scenes), batch):
                pixels = stages.pixels_of(self.scenes[start : start + batch], self.device)
                with autocast(self.device):
                    posterior = self.vae.encode(pixels).latent_dist
                found.append(torch.cat([posterior.mean, posterior.std], dim=1).float().cpu())
                report(min(start + batch, len(self.scenes)))
        raw = torch.cat(found)
        write_tensors(self.path, {"moments": raw.half()})
        return raw.half().float()

    def scaling_factor(self) -> float:
        """One over the standard deviation of the latents' means, four digits."""
        return round(1 / self._raw()[:, :4].std().item(), 4)

    def moments(self) -> Tensor:
        """Scaled mean and standard deviation, (scene, 8, 16, 16)."""
        return self._raw() * self.scaling_factor()


def _same_recipe(folder: Path, recipe: Recipe) -> None:
    path = folder / "recipe.json"
    wanted = dataclasses.asdict(recipe) | {"tokenizer": TOKENIZER}
    if path.exists():
        import json

        if read_json(path) != json.loads(json.dumps(wanted)):
            hint = "use another folder, or delete this one"
            raise DuoError(f"{folder} holds parts that another recipe trained", hint=hint)
    else:
        write_json(path, wanted)


def _assemble(
    target: Path,
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModel,
    vae: AutoencoderKL,
    unet: nn.Module,
    clip: nn.Module,
    judge: JudgeNet,
) -> Path:
    """Write the model in fp16 as a diffusers folder, with the whole CLIP and the judge beside it."""
    import shutil

    from diffusers import StableDiffusionPipeline

    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(dtype=torch.float16)
    pipe.save_pretrained(partial, safe_serialization=True)
    clip.half().save_pretrained(partial / "clip", safe_serialization=True)  # type: ignore[operator]
    write_tensors(partial / "judge" / "model.safetensors", {k: v.half() for k, v in judge.state_dict().items()})
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    return target
