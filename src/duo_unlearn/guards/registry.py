"""The guards that there are. One that joins adds a file and its line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..registry import Registry

if TYPE_CHECKING:
    from .interface import Guard

GUARDS: Final[Registry[Guard]] = Registry(
    "guard",
    {
        "negative-prompt": "guards.negative_prompt:NEGATIVE_PROMPT",
        "inverted-negative": "guards.inverted_negative:INVERTED_NEGATIVE",
        "sld": "guards.sld:SLD",
        "safree": "guards.safree:SAFREE",
        "ce-sdwv": "guards.ce_sdwv:CE_SDWV",
        "prototypes": "guards.prototypes:PROTOTYPES",
        "spell": "guards.spell:SPELL",
        "pno": "guards.pno:PNO",
        "output-filter": "guards.output_filter:OUTPUT_FILTER",
    },
)
