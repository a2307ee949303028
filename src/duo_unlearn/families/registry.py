"""The families that there are. One that joins adds a file and its line here."""

from __future__ import annotations

from typing import Final

from .family import Family
from .flux import FLUX
from .sd3 import SD3
from .sdxl import SDXL
from .stable_diffusion import MINI, SD1, SD2

FAMILIES: Final[dict[str, Family]] = {family.name: family for family in (MINI, SD1, SD2, SDXL, SD3, FLUX)}
