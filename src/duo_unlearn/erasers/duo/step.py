"""One training step's inputs, as a function of (seed, sample index), and its two denoiser passes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...edits.lora import adapters_off
from ...families.denoising import Noised, dtype_of
from ...families.interface import Conditioning, Model, joined
from ..latents import Cache
from .objective import Reference, Terms, duo_loss
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


def round_at(sample: int, pairs: int, rounds: int) -> int:
    """Which of a pair's `rounds` fixed draws the `sample`-th draw of a run uses: a new one every epoch, then again."""
    return sample // pairs % rounds


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
        generator = _generator(seed, "sample", sample)
        t = torch.randint(0, settings.max_timestep, (2,), generator=generator)
        rows.append(_Row(t, *_noise(generator, shape, dropout)))
    return _stacked(rows, settings)


def fixed_draw(
    places: Sequence[tuple[int, int]], rounds: int, shape: torch.Size, settings: TrainSettings, seed: int
) -> Draws:
    """Randomness of which a pair has `rounds` draws alone. places: pair and round of each sample.

    t is stratified: each of a pair's rounds has another of `rounds` equal parts of 0 … max_timestep − 1, in an order of
    the pair's own, so a pair sees every part, and an epoch over many pairs does.
    """
    rows = []
    for pair, number in places:
        generator = _generator(seed, "fixed", pair, number)
        parts = [_part(f"{seed}/part/{pair}/{member}", number, rounds) for member in range(2)]
        t = (torch.tensor(parts, dtype=torch.float64) + torch.rand(2, generator=generator)) / rounds
        t = (t * settings.max_timestep).long()
        rows.append(_Row(t, *_noise(generator, shape, settings.caption_dropout)))
    return _stacked(rows, settings)


class _Row(NamedTuple):
    """One sample's randomness: t of both members, (2,); ε, the posterior's and the prior's, (3, c, h, w); (1,)."""

    t: Tensor
    noise: Tensor
    unnamed: Tensor


def _generator(*name: object) -> torch.Generator:
    return torch.Generator().manual_seed(random.Random("/".join(map(str, name))).getrandbits(62))


def _noise(generator: torch.Generator, shape: torch.Size, dropout: float) -> tuple[Tensor, Tensor]:
    noise = torch.randn((3, *shape), generator=generator)
    return noise, torch.rand(1, generator=generator) < dropout


def _part(name: str, number: int, rounds: int) -> int:
    order = list(range(rounds))
    random.Random(name).shuffle(order)
    return order[number]


def _stacked(rows: Sequence[_Row], settings: ObjectiveSettings) -> Draws:
    t, noise = torch.stack([row.t for row in rows]), torch.stack([row.noise for row in rows])
    other = t[:, 0] if settings.share_timestep else t[:, 1]
    return Draws(t[:, 0], other, noise[:, 0], noise[:, 1], noise[:, 2], torch.cat([row.unnamed for row in rows]))


def make_batch(
    cache: Cache, model: Model, samples: list[int], settings: TrainSettings, seed: int, *, prior: bool = True
) -> Batch:
    """The rows of a step: both members of each pair noised alike, and pure noise at the last timestep.

    prior: False leaves the rows of the prior term out.
    """
    pairs, rounds, shape = len(cache.safe.mean), settings.reference_bank, cache.safe.mean.shape[1:]
    chosen = [pair_at(sample, pairs, seed) for sample in samples]
    if rounds:
        places = [(pair, round_at(sample, pairs, rounds)) for pair, sample in zip(chosen, samples, strict=True)]
        draws = fixed_draw(places, rounds, shape, settings, seed)
    else:
        draws = draw(samples, shape, settings, seed, settings.caption_dropout)
    return batch_at(cache, model, chosen, draws, settings, prior=prior)


def batch_at(
    cache: Cache, model: Model, chosen: list[int], draws: Draws, settings: TrainSettings, *, prior: bool = True
) -> Batch:
    """The same for pairs by their places in the cache, each with a draw."""
    conditioning = cache.empty.repeat(2 * len(chosen))
    if cache.safe_text is not None and cache.unsafe_text is not None:
        named = joined([cache.safe_text.rows(chosen), cache.unsafe_text.rows(chosen)])
        conditioning = conditioning.where(torch.cat([draws.unnamed, draws.unnamed]), named)
    members = noised_members(cache, model, chosen, draws)
    wanted = prior and settings.prior_weight
    return batch_of(model, members, conditioning, cache.empty, draws.prior if wanted else None)


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


def reference_of(model: Model, batch: Batch) -> Reference:
    """What the reference gives on a batch: the adapter is off, and there is no gradient."""
    with torch.no_grad(), adapters_off(model.denoiser):
        outputs = model.predict(*_inputs(model, batch))
    rows = len(batch.target)
    return Reference.of(outputs[:rows], batch.target, outputs[rows:])


def _inputs(model: Model, batch: Batch) -> tuple[Tensor, Tensor, Conditioning]:
    dtype = dtype_of(model.denoiser)
    return batch.noisy.to(dtype), batch.t, batch.conditioning.map(lambda x: x.to(dtype))


def terms_of(
    model: Model,
    network: nn.Module | None,
    batch: Batch,
    settings: ObjectiveSettings,
    reference: Reference | None = None,
    *,
    prior_every: int = 1,
) -> Terms:
    """The loss of a batch: one pass of the policy, and one of the reference unless what it gives is known.

    network: the denoiser as wrapped for several processes; the reference goes through the plain one, so that gradients
    stay in step. prior_every: one in how many batches has a prior term, which weighs that much more.
    """
    if reference is None:
        reference = reference_of(model, batch)
    policy = model.predict(*_inputs(model, batch), network)
    rows = len(batch.target)
    return duo_loss(
        policy[:rows],
        reference,
        batch.target,
        policy[rows:],
        beta=settings.beta,
        prior_weight=settings.prior_weight * prior_every,
        sides=settings.sides,
        pairing=settings.pairing,
    )
