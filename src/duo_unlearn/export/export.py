"""Shipping an edit: it is written in a format that other tools load, loaded back, and compared with the edit itself.

Beside it lie a statement on what was measured, the evidence that the statement is made from, and a card.
"""

from __future__ import annotations

import functools
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..concepts.store import load_concept
from ..edits.below import check_strength, edits_below, together
from ..edits.files import check_base, read_edit
from ..edits.interface import Edit
from ..edits.merge import merge
from ..edits.provenance import PROVENANCE
from ..edits.sketch import sketch_of
from ..errors import DuoError
from ..families.identify import family_of
from ..families.interface import Model
from ..families.load import DTYPES, pick_device
from ..families.registry import FAMILIES
from ..settings.source import edit_source, settings_of
from ..settings.tree import Settings
from ..storage.files import sha256_of, write_faults, write_json, write_text
from .attest import Facts, evidence_of, measured_of
from .card import model_card
from .forms import ExportOf
from .interface import Base, Format, why_not
from .pictures import write_pictures
from .registry import FORMATS
from .same_images import HALF_TOLERANCE, TOLERANCE, check_same, compared_requests, pictures
from .statement import STATEMENT, predicate_of, write_evidence, write_statement

PART: Final = ".part"
"""How the name of a folder ends that is being written, and the whole name of one inside a folder that was there."""


class Exported(NamedTuple):
    """An export: its folder, what to load, and the largest mean difference of an image, in levels of 255.

    guards: the names of the run's guards, which no export holds. base: how the export names its base.
    """

    folder: Path
    target: Path
    difference: float
    guards: tuple[str, ...] = ()
    base: str = ""


def export(
    source: Path,
    folder: Path,
    form: str = "diffusers",
    *,
    edit: str | None = None,
    model: str | None = None,
    strength: float = 1.0,
    device: str = "auto",
    precision: str = "no",
    license_id: str | None = None,
    check: Callable[[Path], None] | None = None,
) -> Exported:
    """Export an edit of a run, or one by itself; load it back, and compare images of both.

    source: a run folder, an edit's folder or its file. folder: new or empty; it is written whole or not at all. form: a
    name of `FORMATS`. edit: which one of the run, its eraser's when None. model: the base, where the run does not name
    it. precision: of the weights, no (float32), fp16 or bf16: what a merged model is written in. license_id: the hub's
    name of the license; None: the base's, as its own card says. check: called with the whole folder before it has its
    name. An edit that the format cannot hold, and an export whose images differ, is a DuoError, and nothing is left of
    it.
    """
    chosen, folder = FORMATS.get(form), folder.resolve()
    _check_arguments(folder, precision, strength)
    place = edit_source(source, edit)
    content = read_edit(place.place, place.name, strength=strength)
    settings = settings_of(place, content.provenance, model)
    family = FAMILIES.get(family_of(settings.model))
    if (reason := why_not(chosen, content, family)) is not None:
        able = [name for name in FORMATS.names() if why_not(FORMATS.get(name), content, family) is None]
        hint = f"--format {' or '.join(able)}" if able else "another --edit: no format holds this one"
        raise DuoError(f"the format {form} cannot hold the edit {content.name}", got=reason, hint=hint)
    floors = edits_below(content, place.run.edits if place.run is not None else None)
    if floors and chosen.removable:
        got = f"it acts on top of {' and '.join(floor.name for floor in floors)}, and an adapter would travel alone"
        hint = "--format merged or checkpoint, which hold both"
        raise DuoError(f"the format {form} cannot hold the edit {content.name}", got=got, hint=hint)
    check_strength(floors, strength)
    measured = measured_of(place, floors, content)
    base = Base(settings.model, settings.checkpoint_config, settings.resolution, pick_device(device), DTYPES[precision])
    with _whole_folder(folder) as temporary:
        written = _write_and_compare(chosen, floors, content, base, settings, temporary)
        name = folder.name if written.target == temporary else written.target.name
        described = ExportOf(
            format=chosen.name, target="" if written.target == temporary else name, removable=chosen.removable,
            strength=strength, precision=precision, license=license_id or written.license,
            difference=written.difference, allowed=_allowed(base),
        )  # fmt: skip
        facts = Facts(described, written.fingerprint, written.change)
        evidence = evidence_of(place, floors, content, settings, measured, facts)
        write_evidence(temporary, evidence)
        predicate = predicate_of(evidence, measured.estimates if measured is not None else [])
        sheet = None
        if measured is not None and place.run is not None:
            sheet = write_pictures(place.run, measured.systems, temporary, blur=evidence.concept.sensitive)
        provenance = _provenance(chosen, content, temporary)
        write_json(temporary / PROVENANCE, provenance)
        write_text(temporary / "README.md", model_card(predicate, content.provenance, name, sheet))
        write_statement(temporary, predicate)
        if check is not None:
            check(temporary)
    guards = tuple(settings.guard) if place.run is not None else ()
    target = folder / written.target.relative_to(temporary)
    return Exported(folder, target, written.difference, guards, predicate.base.name)


def _check_arguments(folder: Path, precision: str, strength: float) -> None:
    if folder.exists() and not folder.is_dir():
        raise DuoError(f"{folder} is a file", hint="choose another --output")
    if precision not in DTYPES:
        raise DuoError("unknown precision", got=precision, hint=f"one of: {', '.join(DTYPES)}")
    if not math.isfinite(strength):
        raise DuoError("the strength must be a number", got=str(strength), hint="--strength 1")
    if folder.exists() and any(path.name != PART for path in folder.iterdir()):
        raise DuoError(f"{folder} is not empty", hint="choose another --output")


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder, whose files are those of `folder` when the block ends well; it is removed otherwise.

    It lies beside a new folder, and takes its name. It lies in one that is there, which stays the same folder: a shell
    may stand in it, or a disk be mounted on it. Files go there in order, the statement as the last one.
    """
    is_there = folder.exists()
    temporary = folder / PART if is_there else folder.with_name(f".{folder.name}{PART}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with write_faults(folder):
            temporary.mkdir(parents=True)
        yield temporary
        with write_faults(folder):
            if is_there:
                for path in sorted(temporary.iterdir(), key=lambda path: path.name == STATEMENT):
                    path.replace(folder / path.name)
            else:
                temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class _Written(NamedTuple):
    """What was written: what is loaded, how far its images are off, and what is known of base and change."""

    target: Path
    difference: float
    fingerprint: str
    license: str
    change: dict[str, list[float]]


def _write_and_compare(
    form: Format, floors: Sequence[Edit], edit: Edit, base: Base, settings: Settings, folder: Path
) -> _Written:
    """Write the edit into a folder, and compare its images with the edit's."""
    requests = compared_requests(load_concept(settings.concept), settings.seed)
    sample = functools.partial(
        pictures, requests=requests, steps=settings.evaluate.steps, guidance=settings.evaluate.guidance
    )
    model = base.load()
    check_base(edit, model)
    fingerprint, license_id, change = model.fingerprint(), _license_of(model), sketch_of([*floors, edit], model)
    with together([*floors, edit], model):
        wanted = sample(model, what=f"the edit {edit.name} on its base")
    for floor in floors:
        merge(floor, model)
    with write_faults(folder):
        target = form.write(edit, model, folder)
    del model  # two may not fit
    found = sample(form.load(target, base), what="the export")
    return _Written(target, check_same(wanted, found, _allowed(base)), fingerprint, license_id, change)


def _license_of(model: Model) -> str:
    """The license that a base's own card names, in the hub's words; "unknown" where there is no card."""
    from huggingface_hub import ModelCard

    card = Path(model.pipe.config.get("_name_or_path") or "") / "README.md"
    if not card.is_file():
        return "unknown"
    try:
        named = ModelCard.load(card, ignore_metadata_errors=True).data.license
    except (ValueError, OSError):
        return "unknown"
    return str(named) if named else "unknown"


def _allowed(base: Base) -> float:
    return TOLERANCE if base.dtype == DTYPES["no"] else HALF_TOLERANCE


def _provenance(form: Format, edit: Edit, folder: Path) -> dict[str, Any]:
    """The edit's provenance, what was done with it, and the hash of every file of weights."""
    hashes = {path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob("*.safetensors"))}
    known = {key: value for key, value in edit.provenance.items() if key != "sha256"}
    described = {"edit": edit.name, "edit_sha256": edit.sha256, "strength": edit.strength, "format": form.name}
    whole: dict[str, Any] = {"sha256": next(iter(hashes.values()))} if len(hashes) == 1 else {"files": hashes}
    return {**known, **described, **whole}


def push_folder(folder: Path, repository: str) -> str:
    """Upload an exported folder to the hub (private unless it is there already); gives its address."""
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder))
    except Exception as error:  # the hub's client raises many types; each means the same to the user
        hint = "check the name (owner/name), the network and `hf auth login`; the export itself is whole"
        got = f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"
        raise DuoError(f"cannot upload to {repository}", got=got, hint=hint) from error
