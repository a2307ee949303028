"""One training step's inputs, as a function of (seed, sample index), and its two denoiser passes."""

from __future__ import annotations

import random
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...edits.lora import adapters_off
from ...families.denoising import Noised
from ...families.interface import Conditioning, Model, joined
from ..latents import Cache
from .objective import Terms, duo_loss
from .settings import ObjectiveSettings, TrainSettings


class Batch(NamedTuple):
    """The denoiser's input and target: rows [safe; unsafe; prior], 2·pair rows and, with a prior term, pair more.

    noisy (row, c, h, w) · t (row,) · conditioning of each row's prompt · target (2·pair, c, h, w).
    """

    noisy: Tensor
    t: Tensor
    conditioning: Conditioning
    target: Tensor


def pair_at(sample: int, pairs: int, seed: int) -> int:
    """Which pair the `sample`-th draw of a run uses: every epoch is a new permutation of all pairs."""
    epoch, position = divmod(sample, pairs)
    order = list(range(pairs))
    random.Random(f"{seed}/order/{epoch}").shuffle(order)
    return order[position]


class Draws(NamedTuple):
    """The randomness of some samples: timesteps of both members, (pair,); noise, (pair, c, h, w).

    unnamed: which pairs get the empty prompt, (pair,), bool.
    """

    safe_t: Tensor
    unsafe_t: Tensor
    eps: Tensor
    posterior: Tensor
    prior: Tensor
    unnamed: Tensor


def draw(samples: list[int], shape: torch.Size, settings: ObjectiveSettings, seed: int, dropout: float = 0.0) -> Draws:
    """Randomness is a function of each sample's index alone.

    So a resumed run needs no generator state, and 4 batches of 1 pair, 1 batch of 4 and 2 processes of 2 see the same.
    Members of a pair share ε and the posterior's noise; they share t as `share_timestep` says. dropout: the share of
    pairs that get the empty prompt.
    """
    rows = []
    for sample in samples:
        generator = torch.Generator().manual_seed(random.Random(f"{seed}/sample/{sample}").getrandbits(62))
        t = torch.randint(0, settings.max_timestep, (2,), generator=generator)
        noise = torch.randn((3, *shape), generator=generator)
        rows.append((t, noise, torch.rand(1, generator=generator) < dropout))
    t = torch.stack([row[0] for row in rows])
    noise = torch.stack([row[1] for row in rows])
    other = t[:, 0] if settings.share_timestep else t[:, 1]
    return Draws(t[:, 0], other, noise[:, 0], noise[:, 1], noise[:, 2], torch.cat([row[2] for row in rows]))


def make_batch(cache: Cache, model: Model, samples: list[int], settings: TrainSettings, seed: int) -> Batch:
    """The rows of a step: both members of each pair noised alike, and pure noise at the last timestep."""
    chosen = [pair_at(sample, len(cache.safe.mean), seed) for sample in samples]
    return batch_at(cache, model, chosen, samples, settings, seed)


def batch_at(
    cache: Cache, model: Model, chosen: list[int], samples: list[int], settings: TrainSettings, seed: int
) -> Batch:
    """The same for pairs by their places in the cache. samples: whose randomness each of them gets."""
    draws = draw(samples, cache.safe.mean.shape[1:], settings, seed, settings.caption_dropout)
    conditioning = cache.empty.repeat(2 * len(samples))
    if cache.safe_text is not None and cache.unsafe_text is not None:
        named = joined([cache.safe_text.rows(chosen), cache.unsafe_text.rows(chosen)])
        conditioning = conditioning.where(torch.cat([draws.unnamed, draws.unnamed]), named)
    members = noised_members(cache, model, chosen, draws)
    return batch_of(model, members, conditioning, cache.empty, draws.prior if settings.prior_weight else None)


def noised_members(cache: Cache, model: Model, chosen: list[int], draws: Draws) -> Noised:
    """Both members of some pairs, by their places in the cache, noised alike: rows [safe; unsafe]."""
    safe = cache.safe.mean[chosen] + cache.safe.std[chosen] * draws.posterior
    unsafe = cache.unsafe.mean[chosen] + cache.unsafe.std[chosen] * draws.posterior
    latents, eps = torch.cat([safe, unsafe]), torch.cat([draws.eps, draws.eps])
    t = torch.cat([draws.safe_t, draws.unsafe_t])
    return Noised(model.noise.add_noise(latents, eps, t), t, model.noise.target(latents, eps, t))


def batch_of(
    model: Model, members: Noised, conditioning: Conditioning, empty: Conditioning, prior: Tensor | None
) -> Batch:
    """The rows of a step on the model's device. prior: pure noise, (pair, c, h, w); None: there is no prior term."""
    noisy, t, target = members
    if prior is not None:
        last = torch.full((len(prior),), model.noise.last_timestep)
        noisy, t = torch.cat([noisy, prior]), torch.cat([t, last])
        conditioning = joined([conditioning, empty.repeat(len(prior))])
    device = model.device
    return Batch(noisy.to(device), t.to(device), conditioning.map(lambda x: x.to(device)), target.to(device))


def reference_of(model: Model, batch: Batch) -> Tensor:
    """The reference's output on a batch, (row, c, h, w): the adapter is off, and there is no gradient."""
    with torch.no_grad(), adapters_off(model.denoiser):
        return model.predict(*_inputs(model, batch))


def _inputs(model: Model, batch: Batch) -> tuple[Tensor, Tensor, Conditioning]:
    dtype = next(model.denoiser.parameters()).dtype
    return batch.noisy.to(dtype), batch.t, batch.conditioning.map(lambda x: x.to(dtype))


def terms_of(
    model: Model,
    network: nn.Module | None,
    batch: Batch,
    settings: ObjectiveSettings,
    reference: Tensor | None = None,
) -> Terms:
    """The loss of a batch: one pass of the policy, and one of the reference unless its output is given.

    network: the denoiser as wrapped for several processes; the reference goes through the plain one, so that gradients
    stay in step.
    """
    if reference is None:
        reference = reference_of(model, batch)
    policy = model.predict(*_inputs(model, batch), network)
    rows = len(batch.target)
    return duo_loss(
        policy[:rows],
        reference[:rows],
        batch.target,
        policy[rows:],
        reference[rows:],
        beta=settings.beta,
        prior_weight=settings.prior_weight,
        sides=settings.sides,
        pairing=settings.pairing,
    )
