"""What an export format is: how an edit is written so that other tools read it, and how it is read back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import torch

    from ..edits.interface import Edit, Kind
    from ..families.family import Family
    from ..families.interface import Model


class Base(NamedTuple):
    """The base model of an edit, and how it is loaded.

    config: for a base in one file, the model that has its configuration. resolution: pixels, None: the model's own.
    dtype: of its weights, and so of a merged model's.
    """

    source: str
    config: str | None
    resolution: int | None
    device: torch.device
    dtype: torch.dtype

    def load(self) -> Model:
        """The base, without an edit."""
        from ..families.load import load_model

        return load_model(self.source, self.device, self.dtype, self.resolution, self.config)


class Format(NamedTuple):
    """One export format, as data and functions.

    takes: the kinds of edits that it can hold exactly. denoisers: of the families that it knows. removable: whether
    whoever loads it can leave the change out. loading: for people, with FOLDER or FILE in place of the name.
    why_not(edit, family): why an edit of a kind that it takes cannot be written all the same, or None.
    write(edit, model, folder): writes the edit at its strength into a new folder, and gives what is to be loaded; the
    model is the base, on which the edit lies switched off, and may be changed. load(target, base): reads it back as
    other tools would, without this package's own reading of edits.
    """

    name: str
    title: str
    takes: frozenset[Kind]
    denoisers: tuple[Literal["unet", "transformer"], ...]
    removable: bool
    loading: str
    why_not: Callable[[Edit, Family], str | None]
    write: Callable[[Edit, Model, Path], Path]
    load: Callable[[Path, Base], Model]


def why_not(form: Format, edit: Edit, family: Family) -> str | None:
    """Why a format cannot hold an edit of a model of a family, in words; None where it can."""
    from ..edits.interface import KINDS

    if edit.kind not in form.takes:
        takes = " or ".join(KINDS[kind] for kind in KINDS if kind in form.takes)
        return f"it holds {takes}, not {KINDS[edit.kind]}"
    if family.denoiser not in form.denoisers:
        return f"it is for models with a {' or a '.join(form.denoisers)}, and {family.title} has a {family.denoiser}"
    return form.why_not(edit, family)


def file_name(edit: Edit) -> str:
    """The name of an edit's file, by the edit and its concept, in letters that every tool reads."""
    name = f"{edit.name}-{edit.provenance.get('concept', 'concept')}"
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name) + ".safetensors"
