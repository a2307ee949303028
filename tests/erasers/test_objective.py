"""The equation: numbers worked by hand, and an independent reading of it in float64 numpy."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from duo_unlearn.erasers.duo.objective import Reference, Terms, duo_loss, prior_loss, sample_error
from duo_unlearn.families.noise import Diffusion
from duo_unlearn.records import Pairing, Prediction, Sides

Array = np.ndarray[Any, np.dtype[np.float64]]
BETA, LAMBDA = 5.0, 30.0
SHAPE = (4, 3, 2)


# --- worked by hand ---------------------------------------------------------------------------------------------------
def one_row(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def by_hand(**options: Any) -> Terms:
    """One pair of two pixels. safe: l_θ = ¼/2, l_φ = 1/2, so m⁺ = −0.375. unsafe: l_θ = 4/2, l_φ = 1/2, so m⁻ = 1.5."""
    target = torch.cat([one_row(1, 0), one_row(0, 2)])
    policy = torch.cat([one_row(0.5, 0), one_row(0, 0)])
    reference = torch.cat([one_row(0, 0), one_row(0, 1)])
    settings = {"beta": 2.0, "prior_weight": 10.0} | options
    return duo_loss(policy, Reference.of(reference, target, one_row(0, 0)), target, one_row(1, 0), **settings)


def test_worked_numbers() -> None:
    terms = by_hand()
    assert terms.safe_margin.tolist() == [-0.375]
    assert terms.unsafe_margin.tolist() == [1.5]
    assert terms.logit.tolist() == [3.75]  # −2 · (−0.375 − 1.5)
    assert terms.accuracy.item() == 1
    assert terms.preference.item() == pytest.approx(0.0232454, abs=1e-6)  # ln(1 + e^−3.75) = ln 1.0235177
    assert terms.prior.item() == 0.5  # (1² + 0²) / 2
    assert terms.loss.item() == pytest.approx(0.0232454 + 10 * 0.5, abs=1e-5)


def test_no_prior_rows_with_lambda_0() -> None:
    target, row = torch.cat([one_row(1, 0), one_row(0, 2)]), one_row(3, 1)
    terms = duo_loss(target, Reference.of(target, target, row[:0]), target, row[:0], beta=2.0, prior_weight=0.0)
    assert terms.loss.item() == pytest.approx(math.log(2))


def test_worked_numbers_unpaired() -> None:
    terms = by_hand(pairing="unpaired", prior_weight=0.0)
    # (ln(1 + e^(2·2·−0.375)) + ln(1 + e^(−2·2·1.5))) / 2 = (ln 1.2231302 + ln 1.0024788) / 2
    assert terms.loss.item() == pytest.approx((0.2014133 + 0.0024757) / 2, abs=1e-6)


def test_sample_error_is_a_mean_over_all_but_the_first_axis() -> None:
    prediction = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]], [[[0.0, 0.0]], [[0.0, 2.0]]]])
    assert sample_error(prediction, torch.zeros_like(prediction)).tolist() == [7.5, 1.0]


def test_half_precision_is_summed_in_float32() -> None:
    prediction = torch.full((1, 4, 64, 64), 300.0, dtype=torch.float16)  # 300² overflows float16
    assert sample_error(prediction, torch.zeros_like(prediction)).item() == 90_000
    assert prior_loss(prediction, torch.zeros_like(prediction)).item() == 90_000


# --- the independent reading ------------------------------------------------------------------------------------------
class Case(NamedTuple):
    """A batch, member by member, as the paper writes it. Latents, noise, outputs: (pair, c, h, w); t: (pair,)."""

    safe: Tensor
    unsafe: Tensor
    eps: Tensor
    t_safe: Tensor
    t_unsafe: Tensor
    outputs: dict[str, Tensor]


OUTPUTS = ("policy_safe", "policy_unsafe", "reference_safe", "reference_unsafe", "policy_prior", "reference_prior")
SCHEDULE = torch.linspace(0.99, 0.01, 50)


def make_case(pairs: int, seed: int = 0) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn(pairs, *SHAPE, generator=generator)

    t_safe, t_unsafe = torch.randint(0, 50, (2, pairs), generator=generator)
    return Case(normal(), normal(), normal(), t_safe, t_unsafe, {name: normal() for name in OUTPUTS})


def ours(case: Case, prediction: Prediction, **options: Any) -> Terms:
    noise = Diffusion(SCHEDULE, prediction)
    out = case.outputs
    target = noise.target(
        torch.cat([case.safe, case.unsafe]), torch.cat([case.eps, case.eps]), torch.cat([case.t_safe, case.t_unsafe])
    )
    return duo_loss(
        torch.cat([out["policy_safe"], out["policy_unsafe"]]),
        Reference.of(torch.cat([out["reference_safe"], out["reference_unsafe"]]), target, out["reference_prior"]),
        target,
        out["policy_prior"],
        **{"beta": BETA, "prior_weight": LAMBDA} | options,
    )


def read_apart(case: Case, prediction: Prediction, pairing: Pairing) -> tuple[float, float, list[float]]:
    """L_pref, L_prior and the logits, pair by pair in float64, as method.md §2 has them."""
    out = {name: value.double().numpy() for name, value in case.outputs.items()}
    alpha_bar = SCHEDULE.double().numpy()

    def target(x: Array, eps: Array, t: int) -> Array:
        if prediction == "epsilon":
            return eps
        return np.asarray(math.sqrt(alpha_bar[t]) * eps - math.sqrt(1 - alpha_bar[t]) * x)

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    losses, logits = [], []
    for i in range(len(case.safe)):
        eps = case.eps[i].double().numpy()
        margins = []
        for member, latents, t in (("safe", case.safe, case.t_safe), ("unsafe", case.unsafe, case.t_unsafe)):
            goal = target(latents[i].double().numpy(), eps, int(t[i]))
            error_policy = ((goal - out[f"policy_{member}"][i]) ** 2).mean()
            error_reference = ((goal - out[f"reference_{member}"][i]) ** 2).mean()
            margins.append(float(error_policy - error_reference))
        safe, unsafe = margins
        logits.append(-BETA * (safe - unsafe))
        paired = softplus(BETA * (safe - unsafe))
        apart = (softplus(2 * BETA * safe) + softplus(-2 * BETA * unsafe)) / 2
        losses.append(paired if pairing == "paired" else apart)
    prior = float(((out["policy_prior"] - out["reference_prior"]) ** 2).mean())
    return sum(losses) / len(losses), prior, logits


@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("pairs", [1, 3])
def test_agrees_with_an_independent_reading(pairs: int, prediction: Prediction, pairing: Pairing) -> None:
    case = make_case(pairs)
    preference, prior, logits = read_apart(case, prediction, pairing)
    terms = ours(case, prediction, pairing=pairing)
    assert terms.preference.item() == pytest.approx(preference, rel=1e-5)
    assert terms.prior.item() == pytest.approx(prior, rel=1e-5)
    assert terms.loss.item() == pytest.approx(preference + LAMBDA * prior, rel=1e-5)
    assert terms.logit.tolist() == pytest.approx(logits, rel=1e-4, abs=1e-5)
    assert terms.safe_margin.shape == terms.unsafe_margin.shape == terms.logit.shape == (pairs,)


# --- facts ------------------------------------------------------------------------------------------------------------
class LowRank(NamedTuple):
    """A linear denoiser with a frozen weight and an adapter up · down on it, up zero at the start (as LoRA is)."""

    weight: Tensor
    down: Tensor
    up: Tensor

    def policy(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ (self.weight + self.up @ self.down).T).view_as(x)

    def reference(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.weight.T).view_as(x)


def low_rank(seed: int = 0) -> LowRank:
    generator = torch.Generator().manual_seed(seed)
    width = math.prod(SHAPE)
    weight = torch.randn(width, width, generator=generator) / width**0.5
    down = torch.randn(2, width, generator=generator)
    return LowRank(weight.requires_grad_(), down.requires_grad_(), torch.zeros(width, 2, requires_grad=True))


def loss_of(net: LowRank, case: Case, rows: slice, **options: Any) -> Terms:
    safe, unsafe, eps = case.safe[rows], case.unsafe[rows], case.eps[rows]
    noise = Diffusion(SCHEDULE, "epsilon")
    x, noise_twice = torch.cat([safe, unsafe]), torch.cat([eps, eps])
    t = torch.cat([case.t_safe[rows], case.t_safe[rows]])
    noisy, target = noise.add_noise(x, noise_twice, t), noise.target(x, noise_twice, t)
    settings = {"beta": BETA, "prior_weight": LAMBDA} | options
    reference = Reference.of(net.reference(noisy), target, net.reference(eps))
    return duo_loss(net.policy(noisy), reference, target, net.policy(eps), **settings)


def test_an_adapter_of_zeros_gives_ln_2_no_prior_and_no_logit() -> None:
    terms = loss_of(low_rank(), make_case(3), slice(None))
    assert terms.preference.item() == pytest.approx(math.log(2), abs=1e-6)
    assert terms.prior.item() == 0
    assert terms.logit.tolist() == [0, 0, 0]
    assert terms.loss.item() == pytest.approx(math.log(2), abs=1e-6)


def test_the_adapter_learns_from_zero_and_the_loss_falls() -> None:
    net, case = low_rank(), make_case(3)
    optimizer = torch.optim.SGD([net.up, net.down], lr=0.01)
    first = loss_of(net, case, slice(None))
    first.loss.backward()  # type: ignore[no-untyped-call]
    assert net.up.grad is not None
    assert net.up.grad.abs().max() > 0
    optimizer.step()
    assert loss_of(net, case, slice(None)).loss < first.loss


def test_swapping_the_pair_negates_the_logit() -> None:
    case = make_case(3)
    swapped = case._replace(
        safe=case.unsafe,
        unsafe=case.safe,
        t_safe=case.t_unsafe,
        t_unsafe=case.t_safe,
        outputs=case.outputs
        | {f"{who}_{a}": case.outputs[f"{who}_{b}"] for who in ("policy", "reference") for a, b in SWAP},
    )
    there, back = ours(case, "v_prediction"), ours(swapped, "v_prediction")
    assert there.logit.abs().min() > 0
    torch.testing.assert_close(back.logit, -there.logit)
    assert back.accuracy.item() == pytest.approx(1 - there.accuracy.item())


SWAP = (("safe", "unsafe"), ("unsafe", "safe"))


def test_the_reference_carries_no_gradient() -> None:
    net = low_rank()
    case = make_case(2)
    reference_weight = net.weight.detach().clone().requires_grad_()
    frozen = net._replace(weight=reference_weight)
    policy = net.policy(torch.cat([case.safe, case.unsafe]))
    reference = frozen.reference(torch.cat([case.safe, case.unsafe]))
    target = torch.cat([case.eps, case.eps])
    known = Reference.of(reference, target, frozen.reference(case.eps))
    terms = duo_loss(policy, known, target, net.policy(case.eps), beta=BETA, prior_weight=LAMBDA)
    terms.loss.backward()  # type: ignore[no-untyped-call]
    assert reference_weight.grad is None
    assert net.up.grad is not None


def test_what_is_logged_carries_no_gradient() -> None:
    terms = loss_of(low_rank(), make_case(2), slice(None))
    assert terms.loss.requires_grad
    assert not any(value.requires_grad for name, value in terms._asdict().items() if name != "loss")


def test_accumulating_four_batches_of_one_equals_one_batch_of_four() -> None:
    case = make_case(4)
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(math.prod(SHAPE), 2, generator=generator) * 0.1  # away from zero, where `down` has a gradient
    gradients = []
    for parts in ([slice(i, i + 1) for i in range(4)], [slice(0, 4)]):
        net = low_rank()._replace(up=start.clone().requires_grad_())
        for part in parts:
            (loss_of(net, case, part).loss / len(parts)).backward()  # type: ignore[no-untyped-call]
        assert net.up.grad is not None
        assert net.down.grad is not None
        gradients.append(torch.cat([net.up.grad.flatten(), net.down.grad.flatten()]))
    assert gradients[1].abs().max() > 0.1
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-5)


# --- variants ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
@pytest.mark.parametrize(("sides", "moves_safe", "moves_unsafe"), [("both", 1, 1), ("safe", 1, 0), ("unsafe", 0, 1)])
def test_sides_detach_one_member_and_keep_its_value(
    sides: Sides, moves_safe: bool, moves_unsafe: bool, pairing: Pairing
) -> None:
    case = make_case(2)
    policy = {name: case.outputs[name].clone().requires_grad_() for name in ("policy_safe", "policy_unsafe")}
    case = case._replace(outputs=case.outputs | policy)
    terms = ours(case, "epsilon", sides=sides, pairing=pairing)
    assert terms.loss.item() == pytest.approx(ours(make_case(2), "epsilon", pairing=pairing).loss.item())
    terms.loss.backward()  # type: ignore[no-untyped-call]
    safe, unsafe = policy["policy_safe"].grad, policy["policy_unsafe"].grad
    assert safe is not None
    assert unsafe is not None
    assert bool(safe.any()) == bool(moves_safe)
    assert bool(unsafe.any()) == bool(moves_unsafe)


def test_without_the_prior_the_loss_is_the_preference_alone() -> None:
    case = make_case(2)
    with_prior, without = ours(case, "epsilon"), ours(case, "epsilon", prior_weight=0.0)
    assert without.loss.item() == without.preference.item() == with_prior.preference.item()
    assert without.prior.item() == with_prior.prior.item() > 0  # still reported
    broken = case._replace(outputs=case.outputs | {"policy_prior": torch.full_like(case.eps, math.nan)})
    assert math.isfinite(ours(broken, "epsilon", prior_weight=0.0).loss.item())
