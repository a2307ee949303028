"""The format of diffusers: an adapter that `pipe.load_lora_weights(FOLDER)` reads, its alpha in the metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..edits.compose import write_scaled
from ..edits.files import as_lora, why_no_lora
from ..edits.interface import Edit
from ..edits.lora import check_layers
from ..edits.provenance import WEIGHTS
from ..families.interface import Model
from ..storage.files import read_bytes, write_bytes
from .interface import Base, Format

if TYPE_CHECKING:
    from ..families.family import Family


def _why_not(edit: Edit, _family: Family) -> str | None:
    return why_no_lora(edit)


def _write(edit: Edit, model: Model, folder: Path) -> Path:
    """The strength is multiplied in: the adapter acts as wanted at scale 1.

    An adapter at strength 1 is the edit's very file, so its hash is the one in the hash of the measured system.
    """
    adapter = as_lora(edit)
    check_layers(model, adapter)
    if edit.kind == "lora" and edit.strength == 1:
        write_bytes(folder / WEIGHTS, read_bytes(adapter.path))
    else:
        write_scaled(adapter, edit.strength, folder)
    return folder


def _load(target: Path, base: Base) -> Model:
    model = base.load()
    model.pipe.load_lora_weights(target, weight_name=WEIGHTS)
    return model


DIFFUSERS: Final = Format(
    name="diffusers",
    title="an adapter for diffusers",
    takes=frozenset({"lora", "low-rank"}),
    denoisers=("unet", "transformer"),
    removable=True,
    loading='pipe.load_lora_weights("FOLDER")',
    why_not=_why_not,
    write=_write,
    load=_load,
)
