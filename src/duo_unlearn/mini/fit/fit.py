"""`duo mini fit`: train every part of the mini model from a seed, stage by stage; a finished stage is not run again."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import nn

from ...errors import DuoError
from ...storage.files import read_json, read_tensors, write_json, write_tensors
from ..model.judge_net import JUDGES
from ..model.parts import CONTEXT, build_clip, build_scheduler, build_tokenizer, build_unet, build_vae
from . import batches, stages
from .banks import Latents, samples_of
from .damage import JUDGE_A, JUDGE_B
from .feed import Make
from .loop import Loss, Schedule, train_stage

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

TOKENIZER: Final = {"captions": 24_000, "vocabulary": 1200}
"""Captions it reads, and tokens at most (merges stop when every word is one token)."""
DAMAGES: Final = {"judge": JUDGE_A, "judge_b": JUDGE_B}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, beside the code."""

    seed: int = 0
    clip: Schedule = Schedule(steps=2000, lr=8e-4, weight_decay=0.05, warmup=150)
    vae: Schedule = Schedule(steps=1800, lr=2e-3, hold=0.4)
    unet: Schedule = Schedule(steps=16_000, lr=1.5e-3, warmup=300, hold=0.45, ema=0.999)
    judge: Schedule = Schedule(steps=1400, lr=2e-3, hold=0.4)
    judge_b: Schedule = Schedule(steps=2400, lr=1.5e-3, warmup=200, hold=0.4)
    scenes: int = 32_000
    """Scenes whose latents the denoiser is trained on."""
    batch: int = 64
    """Scenes of one step of the denoiser."""
    samples: int = 2000
    """Pictures of the finished denoiser that each judge is trained on, of its own each."""

    def shortened(self, factor: float) -> Recipe:
        """The same recipe with every count multiplied: to try the code, not to train a model."""

        def cut(schedule: Schedule) -> Schedule:
            steps = max(2, round(schedule.steps * factor))
            return schedule._replace(steps=steps, warmup=min(schedule.warmup, steps // 2))

        return dataclasses.replace(
            self,
            clip=cut(self.clip),
            vae=cut(self.vae),
            unet=cut(self.unet),
            judge=cut(self.judge),
            judge_b=cut(self.judge_b),
            scenes=max(64, round(self.scenes * factor)),
            samples=max(64, round(self.samples * factor)),
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
    parts.train("clip", probed, batches.clip_batches(tokenizer), lambda: stages.clip_loss(probed), keep=clip)
    _seed(recipe, 1)
    vae = build_vae().to(device)
    parts.train("vae", vae, batches.vae_batches(), lambda: stages.vae_loss(vae))
    text_encoder = text_tower(clip).to(device)
    _seed(recipe, 2)
    unet = build_unet().to(device)
    latents = Latents(folder, recipe.seed, recipe.scenes, vae, device, quiet)
    alphas = build_scheduler().alphas_cumprod.to(device)
    parts.train(
        "unet",
        unet,
        batches.unet_batches(tokenizer, latents.scenes, recipe.batch, len(alphas)),
        lambda: stages.unet_loss(unet, text_encoder, latents.moments(), alphas),
    )
    vae.register_to_config(scaling_factor=latents.scaling_factor())
    pipe = pipeline_of(tokenizer, text_encoder, vae, unet)
    judges = {}
    for index, (name, network) in enumerate(JUDGES.items()):
        _seed(recipe, 3 + index)
        judges[name] = judge = network().to(device)
        if parts.lacks(name):
            sampled = samples_of(pipe, folder, name, recipe.seed, recipe.samples, quiet=quiet)
            make = batches.judge_batches(DAMAGES[name], sampled)
            parts.train(name, judge, make, functools.partial(stages.judge_loss, judge, vae))
        else:
            parts.read(name, judge)
    return _assemble(folder / "model", pipe, clip, judges)


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

    def lacks(self, stage: str) -> bool:
        """Whether a stage is not finished."""
        return not (self.folder / f"{stage}.safetensors").exists()

    def read(self, stage: str, module: nn.Module) -> None:
        """Put a finished stage's weights into its module, which is trained no more."""
        module.load_state_dict(read_tensors(self.folder / f"{stage}.safetensors")[0])
        module.eval().requires_grad_(False)

    def train(
        self, stage: str, module: nn.Module, make: Make, loss_of: Callable[[], Loss], keep: nn.Module | None = None
    ) -> None:
        """Train a stage if it is not finished, and read it. keep: the part of the module that is wanted."""
        kept = keep if keep is not None else module
        if self.lacks(stage):
            trained = train_stage(
                stage, module, make, loss_of(), getattr(self.recipe, stage),
                folder=self.folder, seed=self.recipe.seed, device=self.device, quiet=self.quiet,
            )  # fmt: skip
            where = torch.cuda.get_device_name() if self.device.type == "cuda" else f"{os.cpu_count()} CPU cores"
            facts = {"loss": repr(trained.loss), "seconds": repr(trained.seconds), "machine": where}
            weights = {k: v.clone() for k, v in kept.state_dict().items()}
            write_tensors(self.folder / f"{stage}.safetensors", weights, facts)
            (self.folder / f"{stage}.checkpoint.safetensors").unlink(missing_ok=True)
        self.read(stage, kept)


def _seed(recipe: Recipe, index: int) -> None:
    """Initial weights depend on the seed and the part alone, not on what was built before."""
    torch.manual_seed(recipe.seed * 10 + index)


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


def pipeline_of(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, vae: AutoencoderKL, unet: nn.Module) -> Any:
    """The parts as a StableDiffusionPipeline."""
    from diffusers import StableDiffusionPipeline

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
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _assemble(target: Path, pipe: Any, clip: nn.Module, judges: dict[str, nn.Module]) -> Path:
    """Write the model in fp16 as a diffusers folder, with the whole CLIP and the judges beside it."""
    import shutil

    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    pipe.to(dtype=torch.float16)
    pipe.save_pretrained(partial, safe_serialization=True)
    clip.half().save_pretrained(partial / "clip", safe_serialization=True)  # type: ignore[operator]
    for name, judge in judges.items():
        write_tensors(partial / name / "model.safetensors", {k: v.half() for k, v in judge.state_dict().items()})
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    return target
