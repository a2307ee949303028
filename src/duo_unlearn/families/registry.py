"""The families that there are. One that joins adds a file and its line here."""

from __future__ import annotations

from typing import Final

from ..registry import Registry
from .family import Family

FAMILIES: Final[Registry[Family]] = Registry(
    "model family",
    {
        "mini": "families.mini:MINI",
        "sd1": "families.stable_diffusion:SD1",
        "sd2": "families.stable_diffusion:SD2",
        "sdxl": "families.sdxl:SDXL",
        "sd3": "families.sd3:SD3",
        "flux": "families.flux:FLUX",
        "flux2": "families.flux2:FLUX2",
        "flux2-klein": "families.flux2:KLEIN",
        "qwen-image": "families.qwen_image:QWEN_IMAGE",
        "z-image": "families.z_image:Z_IMAGE",
    },
)


def every_family() -> list[Family]:
    """Every family's record, in the order of the registry."""
    return [FAMILIES.get(name) for name in FAMILIES.names()]
