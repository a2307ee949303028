"""The merged format: a whole model in diffusers' format, the change in its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..edits.interface import KINDS, Edit
from ..edits.merge import merge
from ..families.interface import Model
from ..families.load import load_model
from ..progress import no_loading_bars
from .interface import Base, Format

if TYPE_CHECKING:
    from ..families.family import Family


def _why_not(_edit: Edit, _family: Family) -> str | None:
    return None


def _write(edit: Edit, model: Model, folder: Path) -> Path:
    merge(edit, model)
    with no_loading_bars():
        model.pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def _load(target: Path, base: Base) -> Model:
    return load_model(str(target), base.device, base.dtype, base.resolution)


MERGED: Final = Format(
    name="merged",
    title="a whole model in diffusers' format",
    takes=frozenset(KINDS),
    denoisers=("unet", "transformer"),
    removable=False,
    loading='pipe = DiffusionPipeline.from_pretrained("FOLDER", use_safetensors=True)',
    why_not=_why_not,
    write=_write,
    load=_load,
)
