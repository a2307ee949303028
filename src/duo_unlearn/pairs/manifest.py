"""The pairs folder: manifest.json beside unsafe/ and safe/, read with every entry checked.

{"version": 1, "concept": name or null, "settings": {…}, "pairs": [Pair, …], "tries": [KindTries, …]}
partial.json has the same form; it stands for a folder whose making has not ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ..errors import DuoError
from ..records import Pair
from ..storage.files import is_regular, read_object, sha256_of, write_json
from ..storage.forms import faults
from ..storage.names import leads_out

VERSION: Final = 1
MANIFEST, PARTIAL = "manifest.json", "partial.json"
_RESTORE: Final = "restore the manifest, or make or import the pairs again"
LONGEST_NAME: Final = 200
"""How many bytes a pair's name may have: with its ending and a temporary one it must fit in a file system's 255."""
NOT_COMPARED: Final = ("tries", "source", "judged_by", "variant")
"""Settings that do not decide what a pair is: how long to go on, where a copy came from, which detector judged it.

A training may have another resolution or precision than the pairs; a search that goes on may not.
"""


@dataclasses.dataclass(frozen=True)
class KindTries:
    """How the search for one kind of pair went. tries: candidates judged; rejected: reason → how many of them."""

    unsafe_prompt: str
    safe_prompt: str
    wanted: int
    kept: int = 0
    tries: int = 0
    rejected: dict[str, int] = dataclasses.field(default_factory=dict)


class Manifest(NamedTuple):
    """What a pairs folder holds. finished: manifest.json, not partial.json."""

    concept: str | None
    settings: dict[str, Any]
    pairs: list[Pair]
    tries: list[KindTries]
    finished: bool


def _form_of(record: type, optional: Iterable[str] = ()) -> type[BaseModel]:
    """A strict pydantic model with a dataclass's fields, so that unknown keys and wrong types are found."""
    hints, fields = get_type_hints(record), dataclasses.fields(record)
    spec: dict[str, Any] = {}
    for field in fields:
        hint, default = hints[field.name], field.default
        if default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            spec[field.name] = (hint | None, None) if field.name in optional else (hint, ...)
        else:
            spec[field.name] = (hint, {} if default is dataclasses.MISSING else default)
    return create_model(record.__name__, __config__=ConfigDict(extra="forbid", strict=True), **spec)


_PAIR, _TRIES = _form_of(Pair), _form_of(KindTries)
_OWN_PAIR = _form_of(Pair, ("name", "unsafe_sha256", "safe_sha256"))


class _ManifestForm(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    version: int = VERSION
    concept: str | None = None
    settings: dict[str, Any] = {}
    pairs: list[dict[str, Any]]
    tries: list[dict[str, Any]] = []


def _validate(form: type[BaseModel], content: object, what: str) -> Any:
    try:
        return form.model_validate(content)
    except ValidationError as error:
        got = "; ".join(faults(error, form.model_fields))
        raise DuoError(f"{what} has faults", got=got, hint=_RESTORE) from error


def _read_form(path: Path) -> _ManifestForm:
    form: _ManifestForm = _validate(_ManifestForm, read_object(path, _RESTORE), str(path))
    if form.version != VERSION:
        raise DuoError(f"{path} has an unknown version", got=str(form.version), hint="update duo_unlearn")
    return form


def _check_names(names: Iterable[str], path: Path) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DuoError(f"{path} names a pair twice", got=name, hint="give each pair a name of its own")
        seen.add(name)


def read_own_manifest(path: Path) -> list[dict[str, Any]]:
    """The pairs of a manifest that a user brought: Pair's fields, of which name and hashes may be None."""
    found = []
    for index, entry in enumerate(_read_form(path).pairs):
        fields = _validate(_OWN_PAIR, entry, f"pair {index + 1} in {path}").model_dump()
        fields["name"] = fields["name"] or Path(fields["unsafe"]).stem
        check_pair_name(path, fields["name"])
        found.append(fields)
    _check_inside(path, [fields[side] for fields in found for side in ("unsafe", "safe")], "copy the images beside it")
    _check_names((fields["name"] for fields in found), path)
    return found


def check_pair_name(path: Path, name: str) -> None:
    """Fail for a pair's name that cannot be a file's. path: the manifest or folder that names it."""
    is_plain = Path(name).name == name and not name.startswith(".") and "\0" not in name
    if not is_plain or len(name.encode(errors="surrogateescape")) > LONGEST_NAME:
        hint = f"at most {LONGEST_NAME} bytes, no slash, no dot in front"
        raise DuoError(f"{path}: a pair's name must be a plain file name", got=repr(name)[:120], hint=hint)


def _check_inside(path: Path, files: Iterable[str], hint: str) -> None:
    """A manifest names files of its own folder; others could be anything that the user can read."""
    for file in files:
        if leads_out(file) or "\0" in file:
            raise DuoError(f"{path} names a file outside its folder", got=repr(file)[1:-1][:200], hint=hint)


def read_manifest(folder: Path, name: str = MANIFEST) -> Manifest:
    """manifest.json or partial.json of a pairs folder, every entry checked and every file's hash.

    DuoError for unknown keys, wrong types, a name used twice, a file that is missing, changed or outside the folder.
    """
    manifest = read_entries(folder, name)
    _check_files(folder, folder / name, manifest.pairs)
    return manifest


def read_entries(folder: Path, name: str = MANIFEST) -> Manifest:
    """The same without a look at the images: their names are checked, the files may be missing or changed."""
    path = folder / name
    if not path.exists():
        raise DuoError(f"there are no pairs in {folder}", got=f"no {name}", hint="run `duo pairs` first")
    form = _read_form(path)
    pairs = [
        Pair(**_validate(_PAIR, entry, f"pair {i + 1} in {path}").model_dump()) for i, entry in enumerate(form.pairs)
    ]
    tries = [
        KindTries(**_validate(_TRIES, entry, f"tries {i + 1} in {path}").model_dump())
        for i, entry in enumerate(form.tries)
    ]
    _check_names((pair.name for pair in pairs), path)
    _check_inside(path, [file for p in pairs for file in (p.unsafe, p.safe)], "import the pairs instead")
    return Manifest(form.concept, form.settings, pairs, tries, name == MANIFEST)


def _check_files(folder: Path, path: Path, pairs: Sequence[Pair]) -> None:
    files = [(p.unsafe, p.unsafe_sha256) for p in pairs] + [(p.safe, p.safe_sha256) for p in pairs]
    if missing := [file for file, _ in files if not is_regular(folder / file)]:
        hint = "restore them, or make the pairs in a new folder"
        raise DuoError(f"files of {path} are missing", got=", ".join(missing), hint=hint)
    if changed := [file for file, digest in files if sha256_of(folder / file) != digest]:
        hint = "restore them, or import the folder as your own pairs"
        raise DuoError(
            f"images in {folder} are not those of its manifest (SHA-256 differs)", got=", ".join(changed), hint=hint
        )


def load_pairs(folder: Path) -> list[Pair]:
    """The pairs of a folder, dropped ones too, with their files checked (see `read_manifest`)."""
    return read_manifest(folder).pairs


def save_manifest(
    folder: Path,
    *,
    concept: str | None,
    settings: Mapping[str, Any],
    pairs: Sequence[Pair],
    tries: Sequence[KindTries] = (),
    name: str = MANIFEST,
) -> None:
    """Write manifest.json (or partial.json) atomically, pairs sorted by name."""
    content = {
        "version": VERSION,
        "concept": concept,
        "settings": dict(settings),
        "pairs": [dict(vars(pair)) for pair in sorted(pairs, key=lambda pair: pair.name)],
        "tries": [dataclasses.asdict(kind) for kind in tries],
    }
    write_json(folder / name, content)


def claim(folder: Path, concept: str | None, settings: Mapping[str, Any]) -> Manifest | None:
    """What an earlier run with the same concept and settings left in a folder; None where the folder is new.

    A folder with pairs of other settings, or with images that no manifest speaks of, is a DuoError.
    """
    for name in (PARTIAL, MANIFEST):
        if (folder / name).exists():
            found = read_manifest(folder, name)
            _compare(folder, {"concept": found.concept, **found.settings}, {"concept": concept, **settings})
            return found
    strays = [file for side in ("unsafe", "safe") for file in sorted((folder / side).glob("*"))]
    if strays:
        hint = "choose another output folder; to use these images, give the folder as pairs.folder"
        raise DuoError(f"{folder} holds images that no manifest speaks of", got=str(strays[0]), hint=hint)
    return None


def _compare(folder: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    keys = [key for key in {**there, **now} if key not in NOT_COMPARED and there.get(key) != now.get(key)]
    if keys:
        got = "; ".join(f"{key} {there.get(key)!r} there, {now.get(key)!r} now" for key in keys)
        hint = "choose another output folder, or set these back"
        raise DuoError(f"{folder} holds pairs that were made with other settings", got=got, hint=hint)


def set_keep(folder: Path, names: Sequence[str], keep: bool, reason: str | None = None) -> list[Pair]:
    """Keep pairs or drop them from training; gives all pairs. The reason stands beside each, nothing is deleted.

    A search for more pairs that was stopped goes on with the same ones. No picture is looked at, so that one that is
    broken can be dropped too; a training looks at all.
    """
    read = {
        name: read_entries(folder, name) for name in (MANIFEST, PARTIAL) if name == MANIFEST or (folder / name).exists()
    }
    if unknown := sorted(set(names) - {pair.name for pair in read[MANIFEST].pairs}):
        raise DuoError(f"there is no such pair in {folder}", got=unknown[0], hint=f"`{MANIFEST}` lists the names")
    pairs: list[Pair] = []
    for name, (concept, settings, there, tries, _) in reversed(read.items()):
        pairs = [dataclasses.replace(p, keep=keep, reason=reason) if p.name in names else p for p in there]
        save_manifest(folder, concept=concept, settings=settings, pairs=pairs, tries=tries, name=name)
    return pairs
