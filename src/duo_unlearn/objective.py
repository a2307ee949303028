r"""The DUO loss: pure functions of tensors.

Notation (paper §3): x⁺ safe and x⁻ unsafe latents, ε shared noise, φ the frozen reference, θ = φ + adapter, and the
per-sample error l(x) = mean over C, H, W of (target − prediction)². With each member's *margin*

    m⁺ = l_θ(x⁺) − l_φ(x⁺),      m⁻ = l_θ(x⁻) − l_φ(x⁻),      d = m⁺ − m⁻

the loss is

    L       = L_pref + λ L_prior (+ μ L_keep)
    L_pref  = −log σ(−β d)
    L_prior = mean (θ(x_T, T, "") − φ(x_T, T, ""))²,   x_T pure noise, T the last timestep
    L_keep  = mean (θ(x⁺_t, t, c⁺) − φ(x⁺_t, t, c⁺))²,   c⁺ the safe member's own prompt, t over the whole schedule

L_keep is not in the paper (there μ = 0): the prior term's idea where an image is seen, for safe prompts.

β is defined once, as above: DUO's β = 500 equals Diffusion-DPO's `beta_dpo` = 1000 with its factor ½.
The gradient of L_pref with respect to d is β σ(β d): β/2 at the start, and it vanishes once a pair is separated, so the
ascent on the unsafe member limits itself.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .records import Pairing, Sides


class Terms(NamedTuple):
    """What one batch gives. loss, preference, prior, keep: scalars. Margins and logit: (pair,); logit = −β d."""

    loss: Tensor
    preference: Tensor
    prior: Tensor
    keep: Tensor
    safe_margin: Tensor
    unsafe_margin: Tensor
    logit: Tensor

    @property
    def accuracy(self) -> Tensor:
        """Implicit accuracy: the share of pairs whose safe member is preferred, a scalar."""
        return (self.logit > 0).float().mean()


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
    """L_prior and L_keep: mean squared difference of the two raw outputs, a scalar; 0 for no rows."""
    if not len(policy):
        return policy.new_zeros((), dtype=torch.float32)
    return (policy.float() - reference.float()).square().mean()


def duo_loss(
    policy: Tensor,
    reference: Tensor,
    target: Tensor,
    prior_policy: Tensor,
    prior_reference: Tensor,
    keep_policy: Tensor | None = None,
    keep_reference: Tensor | None = None,
    *,
    beta: float,
    prior_weight: float,
    keep_weight: float = 0.0,
    sides: Sides = "both",
    pairing: Pairing = "paired",
) -> Terms:
    """The whole loss of a batch.

    policy, reference: outputs of θ and φ on the batch [safe; unsafe], (2·pair, c, h, w); target: what they should have
    been, same shape. prior_policy, prior_reference: outputs on pure noise at T, (pair, c, h, w). keep_policy,
    keep_reference: outputs on safe images under their own prompts, same shape; None without that term.
    The reference outputs carry no gradient. A term of weight 0 may have no rows: (0, c, h, w).
    """
    margin = sample_error(policy, target) - sample_error(reference.detach(), target)
    safe_margin, unsafe_margin = margin.chunk(2)
    preference = preference_loss(safe_margin, unsafe_margin, beta, sides=sides, pairing=pairing)
    prior = prior_loss(prior_policy, prior_reference.detach())
    if keep_policy is None or keep_reference is None:
        keep_policy = keep_reference = policy[:0]
    keep = prior_loss(keep_policy, keep_reference.detach())
    loss = preference + prior_weight * prior if prior_weight else preference
    return Terms(
        loss=loss + keep_weight * keep if keep_weight else loss,
        preference=preference.detach(),
        prior=prior.detach(),
        keep=keep.detach(),
        safe_margin=safe_margin.detach(),
        unsafe_margin=unsafe_margin.detach(),
        logit=-beta * (safe_margin - unsafe_margin).detach(),
    )
