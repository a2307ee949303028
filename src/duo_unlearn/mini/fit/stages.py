"""What each stage of `duo mini fit` learns: one loss a part, as a function of one step's randomness."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..model.judge_net import JudgeNet, attribute_ids
from ..model.parts import token_ids
from ..world.captions import Caption, caption
from ..world.scenes import ATTRIBUTES, ITEMS, OBJECTS, SUBJECTS, Scene, draw_batch, is_held_out, random_scene
from .loop import Draw

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

Loss = Callable[[Draw], Tensor]
FIGURES_PER_OBJECT = 3


def pixels_of(scenes: list[Scene], device: torch.device) -> Tensor:
    """Pictures in [−1, 1], (scene, 3, 64, 64)."""
    return torch.from_numpy(draw_batch(scenes)).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def training_scenes(rng: random.Random, count: int, items: tuple[str, ...] = ITEMS) -> list[Scene]:
    """Random scenes outside the held-out combinations; three figures to one object."""
    found: list[Scene] = []
    while len(found) < count:
        scene = random_scene(rng, subjects=SUBJECTS * FIGURES_PER_OBJECT + OBJECTS, items=items)
        if not is_held_out(scene):
            found.append(scene)
    return found


def hard_batch(rng: random.Random, figures: int, objects: int) -> list[Scene]:
    """Figures, each with every item that training may see in that scene, then objects.

    The five pictures of one figure differ in the held item alone, so the item is what tells them apart.
    """
    scenes: list[Scene] = []
    for _ in range(figures):
        base = random_scene(rng, subjects=SUBJECTS)
        scenes += [s for s in (base.counterpart(item) for item in ITEMS) if not is_held_out(s)]
    while len(scenes) < 5 * figures + objects:
        scene = random_scene(rng, subjects=OBJECTS)
        if not is_held_out(scene):
            scenes.append(scene)
    return scenes


class ClipWithProbes(nn.Module):
    """A CLIP model, and linear probes on both towers that are thrown away after training.

    The probes name the attributes, and so force each tower to keep them apart; contrast alone left *sword*, *book*
    and *empty hands* with nearly one embedding in the prototype.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        sizes = {name: len(labels) for name, labels in ATTRIBUTES.items()}
        self.image_probes = nn.ModuleDict(
            {name: nn.Linear(clip.config.projection_dim, size) for name, size in sizes.items()}
        )
        # One more label on the text's side: "not said".
        self.text_probes = nn.ModuleDict(
            {name: nn.Linear(clip.config.projection_dim, size + 1) for name, size in sizes.items()}
        )


def _said(captions: list[Caption], name: str) -> Tensor:
    labels = ATTRIBUTES[name]
    values = [getattr(c, name) for c in captions]
    return torch.tensor([labels.index(v) if v in labels else len(labels) for v in values])


def clip_loss(model: ClipWithProbes, tokenizer: CLIPTokenizer, device: torch.device) -> Loss:
    """Symmetric contrast over hard batches; captions that are true of another picture too are no negatives."""

    def loss_of(draw: Draw) -> Tensor:
        scenes = hard_batch(draw.rng, figures=16, objects=16)
        captions = [caption(scene, draw.rng) for scene in scenes]
        out = model.clip(
            input_ids=token_ids(tokenizer, [c.text for c in captions]).to(device),
            pixel_values=pixels_of(scenes, device),
        )
        logits = out.logits_per_text.float()
        also_true = torch.tensor([[c.fits(s) for s in scenes] for c in captions], device=device)
        also_true.fill_diagonal_(False)
        logits = logits.masked_fill(also_true, -1e4)
        target = torch.arange(len(scenes), device=device)
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        truth = attribute_ids(scenes)
        for name in ATTRIBUTES:
            image = model.image_probes[name](8 * out.image_embeds)
            text = model.text_probes[name](8 * out.text_embeds)
            loss = loss + 0.25 * functional.cross_entropy(image.float(), truth[name].to(device))
            loss = loss + 0.25 * functional.cross_entropy(text.float(), _said(captions, name).to(device))
        return loss

    return loss_of


def vae_loss(vae: AutoencoderKL, device: torch.device, batch: int = 32, kl_weight: float = 5e-4) -> Loss:
    """Mean absolute and squared error, error of the differences between neighbours (edges), and a small KL term."""

    def loss_of(draw: Draw) -> Tensor:
        pixels = pixels_of(training_scenes(draw.rng, batch), device)
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=draw.generator).to(device)
        decoded = vae.decode(posterior.mean + posterior.std * noise).sample.float()
        error = decoded - pixels
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        total: Tensor = error.abs().mean() + 2 * error.square().mean() + 0.5 * edges + kl_weight * kl
        return total

    return loss_of


def judge_loss(judge: JudgeNet, vae: AutoencoderKL, device: torch.device, batch: int = 64) -> Loss:
    """Every head's cross-entropy; a third of the pictures drawn, a third through the VAE, a third noisy."""

    def loss_of(draw: Draw) -> Tensor:
        scenes = training_scenes(draw.rng, batch)
        pixels = pixels_of(scenes, device)
        third = batch // 3
        with torch.no_grad():
            decoded = vae.decode(vae.encode(pixels[:third]).latent_dist.mean).sample.float()
        strength = 0.3 * torch.rand(third, 1, 1, 1, generator=draw.generator)
        noise = torch.randn(third, 3, 64, 64, generator=draw.generator) * strength
        pixels = torch.cat([decoded, pixels[third : 2 * third] + noise.to(device), pixels[2 * third :]])
        truth = attribute_ids(scenes)
        logits = judge(pixels)
        losses = [functional.cross_entropy(logits[name].float(), truth[name].to(device)) for name in ATTRIBUTES]
        return torch.stack(losses).sum()

    return loss_of


def unet_loss(
    unet: UNet2DConditionModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    scenes: list[Scene],
    moments: Tensor,
    alphas_cumprod: Tensor,
    device: torch.device,
    batch: int = 64,
) -> Loss:
    """ε-prediction on cached latents, weights by min-SNR-5 (Hang et al. 2023), one caption in ten empty.

    moments: scaled mean and standard deviation of every scene's latent, (scene, 8, 16, 16).
    """

    def loss_of(draw: Draw) -> Tensor:
        chosen = [draw.rng.randrange(len(scenes)) for _ in range(batch)]
        texts = ["" if draw.rng.random() < 0.1 else caption(scenes[i], draw.rng).text for i in chosen]
        with torch.no_grad():
            conditioning = text_encoder(token_ids(tokenizer, texts).to(device)).last_hidden_state
        mean, std = moments[chosen].to(device).float().chunk(2, dim=1)
        latents = mean + std * torch.randn(mean.shape, generator=draw.generator).to(device)
        noise = torch.randn(mean.shape, generator=draw.generator).to(device)
        t = torch.randint(0, len(alphas_cumprod), (batch,), generator=draw.generator)
        alpha = alphas_cumprod[t].to(device).view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        predicted = unet(noisy, t.to(device), conditioning).sample.float()
        snr = (alpha / (1 - alpha)).flatten()
        weight = snr.clamp(max=5.0) / snr
        loss: Tensor = (weight * (predicted - noise).square().mean(dim=(1, 2, 3))).mean()
        return loss

    return loss_of
