"""SAFREE (Yoon et al. 2024, arXiv 2410.12761): text rows that speak of unsafe phrases are projected away from them.

P_C projects on the span of the phrases' pooled embeddings, P_M on that of the prompt with one token masked at a time.
Token i is a trigger where masking it takes the prompt away from the phrases: with p_i the pooled embedding without it
and d_i = ‖(I − P_C) p_i‖, where d_i ≥ (1 + α) · the mean of the others. The row x of a trigger becomes (I − P_C) P_M x
in the steps i ≤ t = round(10 sigmoid(2 k (10 β − m))) of a sampling, β = 1 − the mean cosine of the words' rows before
and after this projection.

As published (the authors' code): the rows of trigger words alone change; a masked token is id 0; t counts the steps of
a run of 50, and is scaled to those that there are. i counts from the first step that is taken, as the code's loop does,
so that an image which starts from a picture is filtered too: by its place on the schedule, a path that begins half way
would never be.

The authors' script also makes all phrases, joined, the negative prompt. Here that is a guard of its own, and both are
the stack `safree+negative-prompt`, where the option `guards.negative-prompt.text` has the phrases. SAFREE alone leaves
the negative branch as it is.

`mode: all-rows` is ours: all rows from the first trigger on, end token and padding too. Left out: re-attention in the
latents' frequencies, which the code sets to a constant where it means to scale them. The pooled embedding is read off
the row of the end token: of one text encoder the same; of SDXL's two, both side by side. The pooled vector that SDXL
reads beside the rows stays as it is.

A search that is aware of it sees x ↦ (I − P_C) P_M x in the steps i ≤ t. The triggers, P_M and t, which follow from the
tokens that it has at that time, have no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pydantic import Field

from ..storage.forms import Strict
from .interface import Asks, Branch, Context, Seen

if TYPE_CHECKING:
    from torch import Tensor

    from ..families.family import Family
    from ..families.interface import Guidance, Hooks, Model, SampleRequest, Tokens
    from ..records import Level

STEPS: Final = 50
"""Of the run whose steps t counts."""
KEPT: Final = 64
"""How many prompts' masked embeddings are kept: those of some steps of a search, which has 16 prompts side by side."""


class SafreeSettings(Strict):
    """The phrases, which rows are filtered, and the filter's numbers."""

    mode: Literal["published", "all-rows"] = Field(
        "published", description="published: trigger words' rows; all-rows: every row from the first trigger on."
    )
    phrases: list[str] | None = Field(
        None, min_length=1, description="What is unsafe (published: 17 phrases of nudity); None: the concept's name."
    )
    alpha: float = Field(0.01, ge=0, description="α, how much a trigger's distance is above the others' (published).")
    steps: int = Field(
        10, ge=0, lt=STEPS, description="t at most, the last step of 50, from 0, that is filtered (published: 10)."
    )
    slope: float = Field(2.5, gt=0, description="k (published: 2.5).")
    middle: float = Field(5.333, description="m (published: 5.333).")


class Filtered(NamedTuple):
    """A prompt's rows, (token, width), after the filter, and t as a share of a sampling's steps."""

    rows: Tensor
    share: float


def projector(rows: Tensor) -> Tensor:
    """E E⁺, the orthogonal projection on the span of rows, (n, width) → (width, width), float64 on the CPU."""
    import torch

    basis, sizes, _ = torch.linalg.svd(rows.cpu().double().T, full_matrices=False)
    basis = basis[:, sizes > 1e-6 * sizes.max()]
    onto: Tensor = basis @ basis.T
    return onto


def triggers(distances: Tensor, alpha: float) -> Tensor:
    """Which tokens are triggers, (token,), by the distance d_i from the phrases without each. One alone is none."""
    count = len(distances)
    others = (distances.sum() - distances) / max(count - 1, 1)
    found: Tensor = (distances >= (1 + alpha) * others) & (count > 1)
    return found


def filtered_steps(beta: float, *, most: int = 10, slope: float = 2.5, middle: float = 5.333) -> int:
    """t by the mean change β of the rows: the last step that is filtered."""
    import math

    away = min(max(-2 * slope * (10 * beta - middle), -500.0), 500.0)  # beyond that it is all or nothing
    return round(most / (1 + math.exp(away)))


class Safree:
    """Text rows near the unsafe phrases are projected away from them, in the first steps."""

    name, title = "safree", "SAFREE: filtered text rows"
    version, aware_version = 1, 2
    settings: type[Strict] = SafreeSettings
    learns, acts_on = False, "conditioning"
    level: Level = "input"
    cost = "no denoiser row: a text encoder's row a token of the prompt"
    replaces: Branch | None = "prompt"
    asks: Asks | None = None
    seen: Seen = "part"
    needs_negative: bool = False

    def why_not(self, kind: Family) -> str | None:
        """It masks tokens and reads CLIP's end token."""
        if kind.reads_clip_alone:
            return None
        return f"it masks CLIP's tokens one by one, and {kind.title} reads {kind.reader}'s"

    def build(self, options: Mapping[str, Any], context: Context) -> Hooks:
        """The hook on the conditioning. Prompts without a trigger stay as they are, bit for bit.

        A conditioning without tokens stays too: what is filtered is found by masking tokens.
        """
        import torch

        from ..families.interface import Hooks, Later
        from ..families.tokens import tokens_of

        settings = SafreeSettings.model_validate(dict(options))
        model = context.model
        masked = _MaskedEmbeddings(model)
        phrases = [tokens_of(model, phrase) for phrase in settings.phrases or [context.concept]]
        away = projector(torch.cat([_pooled(model, phrase) for phrase in phrases]))

        def conditioning(requests: Sequence[SampleRequest], guidance: Guidance) -> Guidance:
            before = guidance.positive.text
            found = [
                _filtered(masked, tokens_of(model, request.words), rows, away, settings)
                for request, rows in zip(requests, before, strict=True)
            ]
            if not any(found):
                return guidance
            after = torch.stack([one.rows if one else rows for one, rows in zip(found, before, strict=True)])
            share = torch.tensor([one.share if one else 0.0 for one in found])
            return guidance._replace(positive=guidance.positive._replace(text=after), later=Later(before, share))

        return Hooks(conditioning=conditioning)


class _MaskedEmbeddings:
    """The pooled embeddings of prompts without one token each; those of the last prompts are kept, for searches.

    A prompt's own embedding belongs to its key, as another text encoder gives another one.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.kept: dict[tuple[bytes, ...], Tensor] = {}

    def of(self, tokens: Tokens, rows: Tensor) -> Tensor:
        """Those of one prompt, (token, width): none where it has less than two. rows: its text, (token, width)."""
        from ..families.tokens import ends

        count = int(ends(self.model, tokens.ids)) - 1 if tokens.ids.shape[1] else 0
        if count < 2:
            return rows[:0].detach()
        parts = [tokens.ids, rows[count + 1], *([] if tokens.rows is None else [tokens.rows])]
        key = tuple(part.detach().cpu().double().numpy().tobytes() for part in parts)
        found = self.kept.pop(key, None)
        if found is None:
            found = _pooled(self.model, _masked(self.model, tokens, count))
        self.kept[key] = found
        if len(self.kept) > KEPT:
            del self.kept[next(iter(self.kept))]
        return found


def _filtered(
    embeddings: _MaskedEmbeddings, tokens: Tokens, rows: Tensor, away: Tensor, settings: SafreeSettings
) -> Filtered | None:
    """The rows of one prompt after the filter; None where it has no trigger."""
    import torch

    masked, whole = embeddings.of(tokens, rows).cpu().double(), rows.cpu().double()  # Apple's GPUs have no float64
    count = len(masked)
    if count == 0:
        return None
    keep = torch.eye(len(away), dtype=away.dtype) - away
    found = triggers((masked @ keep).norm(dim=1), settings.alpha)
    if not found.any():
        return None
    projected = whole @ projector(masked) @ keep
    words = slice(0, count + 2)  # start and end token with them
    cosine = torch.nn.functional.cosine_similarity(projected[words], whole[words])
    last = filtered_steps(
        1 - float(cosine.detach().mean()), most=settings.steps, slope=settings.slope, middle=settings.middle
    )  # fmt: skip
    change = torch.zeros(len(rows), dtype=torch.bool)
    change[1 : count + 1] = found
    if settings.mode == "all-rows":
        change = change.cumsum(0) > 0
    return Filtered(torch.where(change.unsqueeze(1).to(rows.device), projected.to(rows), rows), last / STEPS)


def _masked(model: Model, tokens: Tokens, count: int) -> Tokens:
    """The prompt `count` times, each with another of its tokens as id 0."""
    import torch

    from ..families.tokens import vocabulary

    place = torch.arange(count)
    ids = tokens.ids.repeat(count, 1)
    ids[place, place + 1] = 0
    if tokens.rows is None:
        return tokens._replace(ids=ids)
    free = tokens.rows.repeat(count, 1, 1)
    inside = place[(place + 1 >= tokens.first) & (place + 1 < tokens.first + free.shape[1])]
    free[inside, inside + 1 - tokens.first] = vocabulary(model)[0].to(free)
    return tokens._replace(ids=ids, rows=free)


def _pooled(model: Model, tokens: Tokens) -> Tensor:
    """The rows of prompts' end tokens, (prompt, width)."""
    import torch

    from ..families.tokens import ends

    with torch.no_grad():
        text = model.condition(tokens).text
    return text[torch.arange(len(text)), ends(model, tokens.ids).to(text.device)]


SAFREE: Final = Safree()
