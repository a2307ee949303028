r"""The DUO loss: pure functions of tensors.

Notation (paper §3): x⁺ safe and x⁻ unsafe latents, ε shared noise, φ the frozen reference, θ = φ + adapter, and the
per-sample error l(x) = mean over C, H, W of (target − prediction)². With each member's *margin*

    m⁺ = l_θ(x⁺) − l_φ(x⁺),      m⁻ = l_θ(x⁻) − l_φ(x⁻),      d = m⁺ − m⁻

the loss is

    L       = L_pref + λ L_prior
    L_pref  = −log σ(−β d)
    L_prior = mean (θ(x_T, T, "") − φ(x_T, T, ""))²,   x_T pure noise, T the last timestep

β is defined once, as above: DUO's β = 500 equals Diffusion-DPO's `beta_dpo` = 1000 with its factor ½.
The gradient of L_pref with respect to d is β σ(β d): β/2 at the start, and it vanishes once a pair is separated, so the
ascent on the unsafe member limits itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ...records import Pairing, Sides


class Terms(NamedTuple):
    """What one batch gives. loss, preference, prior: scalars. Margins and logit: (pair,); logit = −β d."""

    loss: Tensor
    preference: Tensor
    prior: Tensor
    safe_margin: Tensor
    unsafe_margin: Tensor
    logit: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Implicit accuracy: the share of pairs whose safe member is preferred, a scalar."""
        return (self.logit > 0).float().mean()


class Reference(NamedTuple):
    """All that the loss reads of φ, none of which carries a gradient: it can be computed once and kept.

    error: l_φ of [safe; unsafe], (2·pair,). prior: its outputs on pure noise at T, (pair, c, h, w), or none.
    """

    error: Tensor
    prior: Tensor

    @classmethod
    def of(cls, outputs: Tensor, target: Tensor, prior: Tensor) -> Reference:
        """From φ's outputs on the batch [safe; unsafe] and what they should have been, both (2·pair, c, h, w)."""
        return cls(sample_error(outputs.detach(), target), prior.detach())


def sample_error(prediction: Tensor, target: Tensor) -> Tensor:
    """l: mean squared error of each sample over all but the first axis, in float32; (b, ...) → (b,)."""
    return (prediction.float() - target.float()).square().flatten(1).mean(dim=1)


def preference_loss(
    safe_margin: Tensor, unsafe_margin: Tensor, beta: float, *, sides: Sides = "both", pairing: Pairing = "paired"
) -> Tensor:
    """L_pref averaged over pairs, a scalar, from margins (pair,).

    The unpaired form doubles β, so that at the start both forms have the same loss (ln 2) and the same gradient.
    """
    if sides == "safe":
        unsafe_margin = unsafe_margin.detach()
    elif sides == "unsafe":
        safe_margin = safe_margin.detach()
    if pairing == "paired":
        return -logsigmoid(-beta * (safe_margin - unsafe_margin)).mean()
    apart = logsigmoid(-2 * beta * safe_margin) + logsigmoid(2 * beta * unsafe_margin)
    return -apart.mean() / 2


def prior_loss(policy: Tensor, reference: Tensor) -> Tensor:
    """L_prior: mean squared difference of the two raw outputs at the last timestep, a scalar; 0 for no rows."""
    if not len(policy):
        return policy.new_zeros((), dtype=torch.float32)
    return (policy.float() - reference.float()).square().mean()


def duo_loss(
    policy: Tensor,
    reference: Reference,
    target: Tensor,
    prior_policy: Tensor,
    *,
    beta: float,
    prior_weight: float,
    sides: Sides = "both",
    pairing: Pairing = "paired",
) -> Terms:
    """The whole loss of a batch.

    policy: outputs of θ on the batch [safe; unsafe], (2·pair, c, h, w); target: what they should have been, same shape.
    reference: what φ gave there. prior_policy: θ's outputs on pure noise at T, (pair, c, h, w), or none, (0, c, h, w),
    in a batch without the prior term.
    """
    margin = sample_error(policy, target) - reference.error
    safe_margin, unsafe_margin = margin.chunk(2)
    preference = preference_loss(safe_margin, unsafe_margin, beta, sides=sides, pairing=pairing)
    prior = prior_loss(prior_policy, reference.prior)
    return Terms(
        loss=preference + prior_weight * prior if prior_weight else preference,
        preference=preference.detach(),
        prior=prior.detach(),
        safe_margin=safe_margin.detach(),
        unsafe_margin=unsafe_margin.detach(),
        logit=-beta * (safe_margin - unsafe_margin).detach(),
    )
