"""The inverted negative: a token, inverted on the defended model, as the negative prompt (2511.04834).

The token is learned on the pairs' unsafe images, never on prompts that an evaluation uses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from ..storage.forms import Strict
from .interface import Asks, Branch, Context, Seen
from .learning import learnt

if TYPE_CHECKING:
    from torch import Tensor

    from ..families.family import Family
    from ..families.interface import Guidance, Hooks, SampleRequest
    from ..records import Level
    from ..runs.search_state import SearchState


class InvertedNegativeSettings(Strict):
    """The budget of the inversion."""

    steps: int = Field(3000, ge=1, description="Steps of the inversion (published: 3000).")
    batch: int = Field(1, ge=1, description="Images a step (published: 1).")
    lr: float = Field(5e-3, gt=0, description="AdamW's learning rate (published: 5e-3).")


class InvertedNegative:
    """The inverted token as the negative prompt of every image, before a request's own negative prompt."""

    name, title = "inverted-negative", "Inverted negative"
    version, aware_version = 1, 1
    settings: type[Strict] = InvertedNegativeSettings
    learns, acts_on = True, "conditioning"
    level: Level = "input"
    cost = "nothing; an inversion once"
    replaces: Branch | None = "negative"
    asks: Asks | None = None
    seen: Seen = "whole"
    needs_negative: bool = True

    def why_not(self, kind: Family) -> str | None:
        """It needs a negative branch, and text encoders that read CLIP's tokens alone."""
        if (reason := kind.why_no_negative) is not None:
            return reason
        if kind.reads_clip_alone:
            return None
        return f"it writes a CLIP token's vector, and {kind.title} reads {kind.reader}'s"

    def build(self, options: Mapping[str, Any], context: Context) -> Hooks:
        """The hook on the conditioning; the token is learned first, where the run does not have it."""
        from ..families.interface import Hooks, Inverted
        from ..families.tokens import PLACEHOLDER

        vector = _vector(InvertedNegativeSettings.model_validate(dict(options)), context)

        def conditioning(requests: Sequence[SampleRequest], guidance: Guidance) -> Guidance:
            texts = [f"{PLACEHOLDER} {request.negative}".strip() for request in requests]
            return guidance._replace(negative=context.model.condition(Inverted(texts, vector)))

        return Hooks(conditioning=conditioning)


def _vector(settings: InvertedNegativeSettings, context: Context) -> Tensor:
    from ..families.inversion import invert
    from ..storage.files import digest

    def learn(state: SearchState) -> dict[str, Tensor]:
        vector = invert(
            context.model, context.pairs.unsafe(), steps=settings.steps, batch=settings.batch, seed=context.seed,
            lr=settings.lr, quiet=context.quiet, state=state,
        )  # fmt: skip
        return {"vector": vector}

    key = digest([context.key, settings.model_dump(mode="json"), context.seed])
    return learnt(context, INVERTED_NEGATIVE.name, key, learn)["vector"].to(context.model.device)


INVERTED_NEGATIVE: Final = InvertedNegative()
