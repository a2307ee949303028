"""The erasers that there are. One that joins adds a file and its line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..registry import Registry

if TYPE_CHECKING:
    from .interface import Eraser

ERASERS: Final[Registry[Eraser]] = Registry(
    "eraser",
    {
        "duo": "erasers.duo.eraser:DUO",
        "uce": "erasers.uce:UCE",
        "rece": "erasers.rece:RECE",
        "hirm": "erasers.hirm:HIRM",
        "esd-x": "erasers.esd:ESD_X",
        "esd-u": "erasers.esd:ESD_U",
        "spm": "erasers.spm:SPM",
        "eraseflow": "erasers.erase_flow:ERASE_FLOW",
        "advunlearn": "erasers.adv_unlearn:ADV_UNLEARN",
        "stereo": "erasers.stereo:STEREO",
        "salun": "erasers.salun:SALUN",
        "diffusion-dpo": "erasers.preference:DIFFUSION_DPO",
        "dcpo": "erasers.preference:DCPO",
        "robust-duo": "erasers.robust.eraser:ROBUST_DUO",
    },
)
