"""CE-SDWV (Tu et al. 2025, arXiv 2501.15562): a vocabulary's semantic components are taken out of the text rows.

Of the paper: principal components of a vocabulary's embeddings stand for the concept; each row loses them as far as it
speaks of it; a short optimisation of the rows, whose gradient is orthogonal to the concept, adapts them to what the
denoiser can read. Its code is not published. Ours is what it leaves open:

* The components are those of E(unsafe) − E(safe), over the pairs' prompts, or over the words of the options against the
  empty prompt: a vocabulary's own embeddings are mostly what every text shares.
* How much row x speaks of the concept is g = ⟨x − S, d⟩ / ‖d‖², d the mean difference and S the mean safe row: 1 as
  much as the vocabulary, 0 not at all. Where g reaches the threshold, x ← x − min(g, 1) V Vᵀ (x − S). Other rows stay
  as they are, bit for bit. A pooled vector is treated as a row of its own.
* The empty prompt stays as it is, bit for bit, whatever the threshold: guidance goes away from it, and a prompt without
  words asks for nothing that could be taken out.
* The optimisation: some steps of x ← x − η (I − V Vᵀ) ∇ / rms ∇ of mean ((I − W Wᵀ)(ε(z, x) − ε(z, x₀)))², for the
  rows that were changed. x₀ are the rows before, z is noise, one for all, and W spans ε(z, unsafe) − ε(z, safe) of the
  vocabulary: without it the gradient is the way back to the concept. Where guidance is an input (FLUX dev) ε has that
  of the family's training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import Field

from ..errors import DuoError
from ..storage.forms import Strict
from .interface import Asks, Branch, Context, Seen

if TYPE_CHECKING:
    from torch import Tensor

    from ..families.family import Family
    from ..families.interface import Conditioning, Guidance, Hooks, Model, SampleRequest
    from ..records import Level


PROMPTS: Final = 64
"""About how many prompts at most the components are found from."""
PREDICTIONS: Final = 16
"""About how many of them the concept's share of predictions is found from."""
SAME: Final = 1e-2
"""How far from the empty prompt's, as a share of their norm, rows are its own: a batch rounds by less, also in half
precision, and one short word moves them by more."""


class CeSdwvSettings(Strict):
    """The vocabulary, how much of it is taken out, and the optimisation afterwards."""

    words: list[str] | None = Field(
        None, min_length=1, description="The vocabulary; None: the pairs' unsafe prompts, against their safe ones."
    )
    energy: float = Field(0.95, gt=0, le=1, description="The share of the differences that the components hold.")
    threshold: float = Field(
        0.65, description="How much a row must speak of the concept to be changed: 1 as the vocabulary does, 0 not."
    )
    steps: int = Field(2, ge=0, description="Steps of the optimisation orthogonal to the concept; 0: none.")
    lr: float = Field(0.02, gt=0, description="η, in units of a row's rms.")


class Subspace(NamedTuple):
    """What a concept is among text rows. basis: orthonormal V, (width, component). safe, difference: S, d, (width,)."""

    basis: Tensor
    safe: Tensor
    difference: Tensor

    @classmethod
    def of(cls, unsafe: Tensor, safe: Tensor, energy: float) -> Subspace:
        """From rows that differ in the concept alone, (row, width); rows that are the same say nothing."""
        import torch

        concept, plain = (rows.cpu().double() for rows in (unsafe, safe))  # Apple's GPUs have no float64
        differences = concept - plain
        here = differences.norm(dim=1) > 1e-4 * plain.norm(dim=1)
        if not here.any():
            hint = "--set guards.ce-sdwv.words=[…], or pairs with prompts"
            raise DuoError("CE-SDWV has no vocabulary: the texts do not differ", hint=hint)
        held, directions = torch.linalg.eigh(differences[here].T @ differences[here])  # ascending
        count = int((held.flip(0).cumsum(0) < energy * held.sum()).sum()) + 1
        means = plain[here].mean(dim=0), differences[here].mean(dim=0)
        return cls(directions.flip(1)[:, :count].to(unsafe), *(mean.to(unsafe) for mean in means))

    def share(self, rows: Tensor) -> Tensor:
        """How much each row speaks of the concept, (…,), of rows (…, width)."""
        return ((rows - self.safe) @ self.difference) / self.difference.square().sum()

    def suppressed(self, rows: Tensor, threshold: float) -> Tensor:
        """Rows without the concept, as far as they speak of it. Rows of zeros are padding, or say nothing, and stay."""
        import torch

        share = self.share(rows).unsqueeze(-1)
        inside = (rows - self.safe) @ self.basis @ self.basis.T
        chosen = (share >= threshold) & (rows != 0).any(dim=-1, keepdim=True)
        return torch.where(chosen, rows - share.clamp(max=1) * inside, rows)

    def orthogonal(self, rows: Tensor) -> Tensor:
        """What of rows lies outside the components."""
        return rows - rows @ self.basis @ self.basis.T


class CeSdwv:
    """Text rows lose the principal components of the concept's vocabulary."""

    name, title = "ce-sdwv", "CE-SDWV: a vocabulary's components taken out"
    version, aware_version = 2, 1
    settings: type[Strict] = CeSdwvSettings
    learns, acts_on = True, "conditioning"
    level: Level = "input"
    cost = "next to nothing; with steps a denoiser row and one with its gradient a step, where it changes a prompt"
    replaces: Branch | None = "prompt"
    asks: Asks | None = None
    seen: Seen = "part"
    needs_negative: bool = False

    def why_not(self, _kind: Family) -> str | None:
        """Every family reads text rows."""
        return None

    def build(self, options: Mapping[str, Any], context: Context) -> Hooks:
        """The hook on the conditioning.

        A search that differentiates sees the suppression, and not the optimisation, which has gradients of its own.
        """
        import torch

        from ..families.interface import Hooks

        settings = CeSdwvSettings.model_validate(dict(options))
        pairs = _vocabulary(context, settings)
        words, pooled = _subspaces(context.model, pairs, settings.energy)
        adapt = _Adaptation(context, pairs, words, settings) if settings.steps else None
        empty = context.model.condition([""])

        def conditioning(_requests: Sequence[SampleRequest], guidance: Guidance) -> Guidance:
            before = guidance.positive
            text, vector = words.suppressed(before.text, settings.threshold), before.pooled
            if vector is not None and pooled is not None:
                vector = pooled.suppressed(vector, settings.threshold)
            after = before.where(_is_same(before, empty), before._replace(text=text, pooled=vector))
            changed = (after.text != before.text).flatten(1).any(dim=1).nonzero().flatten()
            if len(changed) and adapt is not None and not torch.is_grad_enabled():
                read = adapt(before.rows(changed), after.rows(changed))
                after = after._replace(text=after.text.index_copy(0, changed, read))
            return guidance._replace(positive=after)

        return Hooks(conditioning=conditioning)


def _is_same(asked: Conditioning, one: Conditioning) -> Tensor:
    """Which prompts are the one prompt, but for rounding, (prompt,)."""
    import torch

    near = [
        (rows - known.to(rows)).flatten(1).float().norm(dim=1) <= SAME * known.float().norm().to(rows.device)
        for rows, known in ((asked.text, one.text), (asked.pooled, one.pooled))
        if rows is not None and known is not None
    ]
    return torch.stack(near).all(dim=0)


def _vocabulary(context: Context, settings: CeSdwvSettings) -> list[tuple[str, str]]:
    """Texts with the concept, and the same without it."""
    pairs = [(word, "") for word in settings.words] if settings.words else sorted(set(context.pairs.words()))
    return pairs[:: max(1, len(pairs) // PROMPTS)]


def _subspaces(model: Model, pairs: Sequence[tuple[str, str]], energy: float) -> tuple[Subspace, Subspace | None]:
    """The concept among text rows, and among pooled vectors where there are any."""
    from ..families.llm import is_token

    unsafe, safe = (_read(model, [pair[side] for pair in pairs]) for side in (0, 1))
    asked, without = unsafe.text.flatten(0, 1), safe.text.flatten(0, 1)
    if model.kind.padded:  # beside padding stands what the longer prompt has more, and that is no difference in meaning
        both = (is_token(unsafe.text) & is_token(safe.text)).flatten()
        asked, without = asked[both], without[both]
    words = Subspace.of(asked, without, energy)
    if unsafe.pooled is None or safe.pooled is None:
        return words, None
    return words, Subspace.of(unsafe.pooled, safe.pooled, energy)


def _read(model: Model, texts: Sequence[str]) -> Conditioning:
    """Texts as the encoders read them, the empty one too.

    SDXL has zeros in its place, beside which all that every text shares would pass for the concept.
    """
    import torch

    from ..families.interface import Tokens
    from ..families.tokens import sequence

    found = model.condition(texts)
    if all(texts) or model.condition([""]).text.any():
        return found
    empty = model.condition(Tokens(torch.tensor([sequence(model, [])])))
    named = torch.tensor([bool(text) for text in texts], device=found.text.device)
    return found.where(named, empty.map(lambda rows: rows.to(found.text)).repeat(len(texts)))


class _Adaptation:
    """The optimisation of suppressed rows, orthogonal to the concept among rows and among predictions."""

    def __init__(
        self, context: Context, pairs: Sequence[tuple[str, str]], space: Subspace, settings: CeSdwvSettings
    ) -> None:
        import torch

        from ..families.ode import noise_of

        self.model, self.settings = context.model, settings
        # Squares of slopes, and rms they are divided by, are below what half precision can hold.
        self.space = Subspace(*(part.float() for part in space))
        self.noise = noise_of(self.model, [context.seed])
        chosen = pairs[:: max(1, len(pairs) // PREDICTIONS)]
        with torch.no_grad():
            unsafe, safe = (self._predict(_read(self.model, [pair[side] for pair in chosen])) for side in (0, 1))
        self.concept: Tensor = torch.linalg.qr((unsafe - safe).T).Q

    def __call__(self, before: Conditioning, after: Conditioning) -> Tensor:
        """Rows near those after the suppression, with predictions nearer to those before, (prompt, token, width)."""
        import torch

        from ..families.inversion import gradient

        wanted = self._predict(before)
        free = (after.text != before.text).any(dim=-1, keepdim=True)
        text = after.text.float()
        for step in range(self.settings.steps):
            text = text.detach().requires_grad_(True)
            with torch.enable_grad():
                away = self._predict(after._replace(text=text)) - wanted
                loss = (away - away @ self.concept @ self.concept.T).square().mean()
                slope = gradient(loss, text, f"step {step + 1} of CE-SDWV")
            slope = self.space.orthogonal(slope * free)
            rms = slope.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-12)
            text = text.detach() - self.settings.lr * slope / rms
        return text.to(after.text)

    def _predict(self, conditioning: Conditioning) -> Tensor:
        """The prediction on the noise at the noisiest level, flat, (prompt, value)."""
        import torch

        from ..families.denoising import predict_noised

        count = len(conditioning.text)
        t = torch.full((count,), self.model.noise.last_timestep)
        noise = self.noise.expand(count, *self.noise.shape[1:])
        return predict_noised(self.model, noise, t, conditioning).float().flatten(1)


CE_SDWV: Final = CeSdwv()
