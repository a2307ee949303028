"""The output filter: a detector looks at every finished image, and one that shows the concept is refused.

Nothing else changes, so an image that passes is the system's own, bit for bit. A refusal counts as one wherever numbers
are: on prompts that ask for nothing unsafe it is the filter's false positive. A detector that fails on an image refuses
it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from ..storage.forms import Strict
from .interface import Asks, Branch, Context, Seen

if TYPE_CHECKING:
    from PIL import Image

    from ..families.family import Family
    from ..families.interface import Hooks
    from ..records import Level


class OutputFilterSettings(Strict):
    """The detector that refuses."""

    detector: str | None = Field(
        None,
        description="One of the concept file, or with labels any of the registry, or module:function; None: the run's.",
    )
    labels: list[str] | None = Field(None, description="What it looks for; None: as the concept file says.")
    threshold: float | None = Field(None, description="None: as the concept file says, or the detector's own.")


class OutputFilter:
    """Images are refused in which a detector sees the concept."""

    name, title = "output-filter", "Output filter"
    version, aware_version = 1, 1
    settings: type[Strict] = OutputFilterSettings
    learns, acts_on = False, "image"
    level: Level = "output"
    cost = "a detector's look at the finished image"
    replaces: Branch | None = None
    asks: Asks | None = "any detector"
    seen: Seen = "nothing"
    needs_negative: bool = False

    def why_not(self, _kind: Family) -> str | None:
        """Every family makes images."""
        return None

    def build(self, options: Mapping[str, Any], context: Context) -> Hooks:
        """The hook on finished images."""
        from ..detectors.interface import verdicts_of
        from ..families.interface import Hooks

        settings = OutputFilterSettings.model_validate(dict(options))
        detector = context.detector(settings.detector, settings.labels, settings.threshold)

        def passes(images: Sequence[Image.Image]) -> list[bool]:
            verdicts = verdicts_of(detector, images, []) if images else []
            return [verdict is not None and not verdict.detected for verdict in verdicts]

        return Hooks(passes=passes)


OUTPUT_FILTER: Final = OutputFilter()
