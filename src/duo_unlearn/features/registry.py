"""The feature extractors and CLIPs that there are, and which of them a family of models is measured with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ..families.registry import FAMILIES
from ..registry import Registry

if TYPE_CHECKING:
    from .interface import ClipSource, Features

EXTRACTORS: Final[Registry[Callable[[], Features]]] = Registry(
    "feature extractor",
    {
        "mini-clip": "features.mini:MiniClipFeatures",
        "effnet-lite0": "features.effnet:EffnetFeatures",
    },
)
"""Names for `Family.features`. Their weights come with the package or a dependency."""
CLIPS: Final[Registry[ClipSource]] = Registry(
    "CLIP",
    {
        "mini-clip": "features.mini:MINI_CLIP",
        "clip-vit-large-patch14": "features.clip:LARGE",
    },
)
"""Names for `Family.clip`."""


def features_for(family: str) -> Features:
    """The extractor that preservation, FID and KID of a family's images are measured with. No network is needed."""
    return EXTRACTORS.get(FAMILIES.get(family).features)()


def clip_source(family: str) -> ClipSource:
    """The CLIP that a family's images are compared with texts by, not loaded yet."""
    return CLIPS.get(FAMILIES.get(family).clip)
