"""What each stage of `duo mini fit` learns: one loss a part, of a batch and the step's randomness."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..world.scenes import ATTRIBUTES
from .batches import JUDGED, SHARES_OF_A_JUDGE, STATED, ClipBatch, JudgeBatch, UnetBatch, VaeBatch
from .damage import to_pixels
from .loop import Loss

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPModel, CLIPTextModel


class ClipWithProbes(nn.Module):
    """A CLIP model, and linear probes on both towers that are thrown away after training.

    The probes name the attributes, and so force each tower to keep them apart; contrast alone left *sword*, *book*
    and *empty hands* with nearly one embedding in the prototype.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        sizes = {name: len(ATTRIBUTES[name]) for name in STATED}
        width = clip.config.projection_dim
        self.image_probes = nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()})
        # One more label on the text's side: "not said".
        self.text_probes = nn.ModuleDict({name: nn.Linear(width, size + 1) for name, size in sizes.items()})


def clip_loss(model: ClipWithProbes) -> Loss:
    """Symmetric contrast over hard batches; captions that are true of another picture too are no negatives."""

    def loss_of(batch: ClipBatch) -> Tensor:
        out = model.clip(input_ids=batch.ids, pixel_values=to_pixels(batch.pictures))
        logits = out.logits_per_text.float().masked_fill(batch.also_true, -1e4)
        target = torch.arange(len(logits), device=logits.device)
        loss = (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2
        for index, name in enumerate(STATED):
            image = model.image_probes[name](8 * out.image_embeds)
            text = model.text_probes[name](8 * out.text_embeds)
            loss = loss + 0.25 * functional.cross_entropy(image.float(), batch.truth[:, index])
            loss = loss + 0.25 * functional.cross_entropy(text.float(), batch.said[:, index])
        return loss

    return loss_of


def vae_loss(vae: AutoencoderKL, kl_weight: float = 5e-4) -> Loss:
    """Mean absolute and squared error, error of the differences between neighbours (edges), and a small KL term."""

    def loss_of(batch: VaeBatch) -> Tensor:
        pixels = to_pixels(batch.pictures)
        posterior = vae.encode(pixels).latent_dist
        decoded = vae.decode(posterior.mean + posterior.std * batch.noise).sample.float()
        error = decoded - pixels
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        mean, logvar = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        total: Tensor = error.abs().mean() + 2 * error.square().mean() + 0.5 * edges + kl_weight * kl
        return total

    return loss_of


def judge_loss(judge: nn.Module, vae: AutoencoderKL) -> Loss:
    """Cross-entropy of every head; items one by one, as a picture may show two."""

    def loss_of(batch: JudgeBatch) -> Tensor:
        first = len(batch.pixels) // SHARES_OF_A_JUDGE
        with torch.no_grad():
            decoded = vae.decode(vae.encode(batch.pixels[:first]).latent_dist.mean).sample.float().clamp(-1, 1)
        logits = judge(torch.cat([decoded, batch.pixels[first:]]))
        items = functional.binary_cross_entropy_with_logits(logits["item"].float(), batch.items, reduction="none")
        loss = (items.sum(dim=1) * batch.known).sum() / batch.known.sum().clamp(min=1)
        for index, name in enumerate(JUDGED):
            loss = loss + functional.cross_entropy(logits[name].float(), batch.labels[:, index])
        total: Tensor = loss
        return total

    return loss_of


def unet_loss(unet: UNet2DConditionModel, text_encoder: CLIPTextModel, moments: Tensor, alphas_cumprod: Tensor) -> Loss:
    """ε-prediction on cached latents, weights by min-SNR-5 (Hang et al. 2023).

    moments: scaled mean and standard deviation of every scene's latent, (scene, 8, 16, 16). It and alphas_cumprod
    are on the denoiser's device.
    """

    def loss_of(batch: UnetBatch) -> Tensor:
        with torch.no_grad():
            conditioning = text_encoder(batch.ids).last_hidden_state
        mean, std = moments[batch.chosen].float().chunk(2, dim=1)
        latents = mean + std * batch.posterior
        alpha = alphas_cumprod[batch.timesteps].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * batch.noise
        predicted = unet(noisy, batch.timesteps, conditioning).sample.float()
        snr = (alpha / (1 - alpha)).flatten()
        weight = snr.clamp(max=5.0) / snr
        loss: Tensor = (weight * (predicted - batch.noise).square().mean(dim=(1, 2, 3))).mean()
        return loss

    return loss_of
