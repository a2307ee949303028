"""How a search that is aware of guards predicts: what they do at one step of a sampling is inside what it lowers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from ..edits.interface import edits_off
from ..families.denoising import Reader, has_branches, predict_noised
from ..families.interface import (
    Branches,
    Conditioning,
    Guidance,
    Hooks,
    Model,
    PromptWords,
    SampleRequest,
    Step,
    Tokens,
)
from ..families.sampling import Line, after_guards, reads_later, term_of

NO_WORDS: Final = Tokens(torch.zeros(1, 0, dtype=torch.long))
"""What guards are told of a row whose conditioning is free, in a search as in the sampling of what it found."""
STEPS: Final = 50
"""Of the sampling whose step a noise level stands for, where a guard counts them."""


class GuardedReader(Reader):
    """A search that is aware of guards: their hooks on conditioning, prediction and clean latents are inside it.

    Where one changes the negative branch, adds a term, or acts behind guidance, the search sees the prediction as the
    family guides it and as guards change it, and is held against the original's guided one; else, and where there is
    no negative branch, the prediction under the conditioning as the guards change it. On pictures of the concept the
    original's guided one is ε_∅ + s (ε − ε_∅), ε the noise that they have: held against ε alone the search would learn
    to undo the guidance. A noise level stands by itself: what a guard keeps from step to step (SLD's momentum) is 0.

    Guards are told the words that a row has at that step of the search. What they choose by these has no gradient.
    """

    def __init__(self, model: Model, guidance: float) -> None:
        super().__init__(model)
        self.guidance, self.hooks = guidance, list(model.hooks)
        self.acting = [hook for hook in self.hooks if hook.prediction is not None or hook.clean is not None]
        found = self._guidance(model.condition([""]), None)
        changed = found.negative is not self._empty or found.away is not None or bool(self.acting)
        self.guided = has_branches(model, guidance) and changed

    @property
    def unit(self) -> float:
        """The scale of guidance where there is some, so that a residual is as large as that of a plain prediction.

        UnlearnDiffAtk bounds the gradient of its square.
        """
        return self.guidance if self.guided else super().unit

    def predict(
        self, noisy: Tensor, t: Tensor, conditioning: Conditioning, words: Sequence[PromptWords] | None = None
    ) -> Tensor:
        """The guarded prediction."""
        steps = STEPS - 1 - t.cpu() * STEPS // (self.model.noise.last_timestep + 1)
        guidance = _at(self._guidance(conditioning, words), steps)
        seen = self._contrast(noisy, t, guidance)
        if guidance.away is not None:
            seen = seen._replace(predicted=self._after([term_of(guidance.away)], 0, seen))
        if not self.acting:
            return seen.predicted
        # A guard may count steps, so rows of one step go through it together.
        numbers = steps.tolist()
        there = sorted(set(numbers))
        rows = [torch.tensor([i for i, one in enumerate(numbers) if one == number]) for number in there]
        parts = [self._after(self.acting, number, seen.rows(some)) for number, some in zip(there, rows, strict=True)]
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def reference(self, noisy: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """The original's prediction, guided by the empty prompt where the system's is guided."""
        empty = self.model.condition([""]).repeat(len(noisy))
        return self._contrast(noisy, t, Guidance(conditioning, empty)).predicted

    def wanted(self, noisy: Tensor, t: Tensor, target: Tensor) -> Tensor:
        """The target, guided by the original's prediction under the empty prompt where the system's is guided."""
        wanted = super().wanted(noisy, t, target)
        if not self.guided:
            return wanted
        with torch.no_grad(), edits_off(self.model):
            empty = predict_noised(self.model, noisy, t, self.model.condition([""]).repeat(len(noisy)))
        return self.model.kind.guide(wanted, empty.float(), self.guidance)

    def _guidance(self, conditioning: Conditioning, words: Sequence[PromptWords] | None) -> Guidance:
        """What guidance contrasts, as guards change it."""
        rows = len(conditioning.text)
        requests = [SampleRequest(one, 0) for one in words or [NO_WORDS] * rows]
        self._empty = self.model.condition([""]).repeat(rows)
        guidance = Guidance(conditioning, self._empty)
        for hook in self.hooks:
            if hook.conditioning is not None:
                guidance = hook.conditioning(requests, guidance)
        return guidance

    def _contrast(self, noisy: Tensor, t: Tensor, guidance: Guidance) -> _Seen:
        """The prediction, guided where guards change what guidance gives."""
        positive = predict_noised(self.model, noisy, t, guidance.positive)
        if not self.guided:
            return _Seen(noisy, t, positive)
        negative = predict_noised(self.model, noisy, t, guidance.negative)
        return _Seen(noisy, t, self.model.kind.guide(positive, negative, self.guidance), positive, negative)

    def _after(self, hooks: Sequence[Hooks], number: int, seen: _Seen) -> Tensor:
        """The prediction after guards at a step of `STEPS`. They see it as the pipeline lays latents out."""
        space = self.model.kind.latents

        def predict(conditioning: Conditioning) -> Tensor:
            return space.pack(predict_noised(self.model, seen.noisy, seen.t, conditioning))

        def line_of() -> Line:
            kept, slope = self.model.noise.clean_line(seen.t, step.latents.float())
            return Line(kept * step.latents.float(), slope)

        branches, predicted = None, space.pack(seen.predicted)
        if seen.positive is not None and seen.negative is not None:
            branches = Branches(space.pack(seen.positive), space.pack(seen.negative), self.guidance, predict)
        step = Step(space.pack(seen.noisy.to(predicted)), number, STEPS, branches, {})
        return space.unpack(after_guards(hooks, predicted, step, line_of))


def _at(guidance: Guidance, steps: Tensor) -> Guidance:
    """The guidance in which each row reads what it does at its own step of `STEPS`, (row,)."""
    if guidance.later is None:
        return guidance
    before, after = guidance.positive, guidance.positive._replace(text=guidance.later.text)
    due = reads_later(guidance.later, steps, STEPS).to(before.text.device)
    return guidance._replace(positive=after.where(due, before), later=None)


class _Seen(NamedTuple):
    """What guards act on: noised latents, their noise levels, the prediction, and the branches of guidance, if any."""

    noisy: Tensor
    t: Tensor
    predicted: Tensor
    positive: Tensor | None = None
    negative: Tensor | None = None

    def rows(self, chosen: Tensor) -> _Seen:
        """Some of the rows, by number."""
        positive, negative = (None if part is None else part[chosen] for part in (self.positive, self.negative))
        return _Seen(self.noisy[chosen], self.t[chosen], self.predicted[chosen], positive, negative)
