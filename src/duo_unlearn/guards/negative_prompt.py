"""The negative prompt: guidance goes away from the concept's words in place of the empty prompt.

The guided prediction is ε_n + s (ε_c − ε_n), n the negative prompt, s the guidance scale. With s = 1 n has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from ..storage.forms import Strict
from .interface import Asks, Branch, Context, Seen

if TYPE_CHECKING:
    from ..families.family import Family
    from ..families.interface import Guidance, Hooks, SampleRequest
    from ..records import Level


class NegativePromptSettings(Strict):
    """The words that guidance goes away from."""

    text: str | None = Field(None, description="The negative prompt; None: the concept's name; empty: no guard at all.")


class NegativePrompt:
    """A negative prompt on every image. A request's own negative prompt comes after it."""

    name, title = "negative-prompt", "Negative prompt"
    version, aware_version = 1, 1
    settings: type[Strict] = NegativePromptSettings
    learns, acts_on = False, "conditioning"
    level: Level = "input"
    cost = "nothing"
    replaces: Branch | None = "negative"
    asks: Asks | None = None
    seen: Seen = "whole"
    needs_negative: bool = True

    def why_not(self, kind: Family) -> str | None:
        """A family that is guided by an input has no negative branch."""
        return kind.why_no_negative

    def build(self, options: Mapping[str, Any], context: Context) -> Hooks:
        """The hook on the conditioning; with the empty text there is none, and images are the system's own."""
        from ..families.interface import Hooks

        given = options.get("text")
        text = context.concept if given is None else str(given)
        if not text.strip():
            return Hooks()

        def conditioning(requests: Sequence[SampleRequest], guidance: Guidance) -> Guidance:
            negatives = [f"{text}, {request.negative}" if request.negative else text for request in requests]
            return guidance._replace(negative=context.model.condition(negatives))

        return Hooks(conditioning=conditioning)


NEGATIVE_PROMPT: Final = NegativePrompt()
