"""The pairs folder as the other stages see it, and pairs that a user brings.

Every fault of a user's pairs is found before anything is written; then copies are made as PNG. The manifest's form is
in `manifest.py`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..detectors.interface import Detector
from ..errors import DuoError, several
from ..progress import progress
from ..records import Pair
from ..storage.files import is_regular, sha256_of
from ..storage.pictures import image_fault, open_image, save_png
from .held_out import chosen_names
from .manifest import (
    MANIFEST,
    PARTIAL,
    check_pair_name,
    claim,
    load_pairs,
    read_entries,
    read_own_manifest,
    save_manifest,
    set_keep,
)
from .sides import check_sides, count_sides, judge_sides, report_sides

__all__ = ["check_pairs", "find_pairs", "import_pairs", "load_pairs", "save_manifest", "set_keep"]

RATIO_TOLERANCE = 0.01
_LAYOUT = "a folder with unsafe/ and safe/ holding the same file names, or a manifest.json"


@dataclasses.dataclass(frozen=True)
class _Source:
    """A pair before it is copied: where its files are, their hashes in `pair`, and what the user said of it."""

    unsafe: Path
    safe: Path
    pair: Pair


def check_pairs(source: Path) -> None:
    """Find the faults that `import_pairs` would find in a user's pairs without a detector. Nothing is written."""
    _check_images(_find(source))


def are_taken(source: Path, folder: Path) -> bool:
    """Whether a pairs folder has all that was brought from a place which is not there any more, or not from here."""
    if source.exists() or not (folder / MANIFEST).exists():
        return False
    return read_entries(folder).settings.get("source") == str(source)


def find_pairs(source: Path) -> list[Pair]:
    """A user's pairs as they lie there, with what a manifest says of them. No image is looked at."""
    return [entry.pair for entry in _find(source)]


def import_pairs(
    source: Path,
    folder: Path,
    *,
    detector: Detector | None = None,
    trust: bool = False,
    held_out: Path | None = None,
    share: float = 0.0,
    quiet: bool = False,
) -> list[Pair]:
    """Copy a user's own pairs into a pairs folder as RGB PNGs, and write its manifest. `duo pairs` calls it.

    source: a folder with unsafe/ and safe/ of the same names (extensions may differ), a manifest.json, or a folder
    with one. No prompt is needed. The same source again changes nothing, so pairs dropped meanwhile stay dropped; nor
    need it be there then.
    detector: judges every member; without one the pairs have no scores. trust: take pairs whose sides look swapped too.
    held_out: a second pairs folder, which gets a share of them, each pair by its name. Gives those of `folder`.
    DuoError, before anything is written: a missing member (all are named), a stem used twice, an empty folder, a bad
    or flat image, members that are identical or of different aspect ratios, sides that look swapped.
    """
    is_own = (folder / MANIFEST).exists() and source.resolve() in (folder.resolve(), (folder / MANIFEST).resolve())
    if is_own or are_taken(source, folder):
        return load_pairs(folder)
    if source.resolve() == folder.resolve():
        raise DuoError(f"your pairs lie in the run's own folder {folder}", hint="move them to a folder of their own")
    sources = _find(source)
    settings: dict[str, Any] = {"source": str(source), "files": _digest(sources)}
    apart = chosen_names([entry.pair.name for entry in sources], share)
    if apart:
        settings["held_out"] = share
    manifest = claim(folder, None, settings)
    if manifest is not None and manifest.finished:
        return manifest.pairs
    _check_images(sources)
    if detector is not None:
        sources = _judge(source, sources, detector, trust=trust, quiet=quiet)
        settings["judged_by"] = str(detector.contract)
    if held_out is not None and apart:
        _copy_all([entry for entry in sources if entry.pair.name in apart], held_out, settings, "held out", quiet)
    used = [entry for entry in sources if held_out is None or entry.pair.name not in apart]
    return _copy_all(used, folder, settings, "import", quiet)


def _copy_all(sources: Sequence[_Source], folder: Path, settings: dict[str, Any], what: str, quiet: bool) -> list[Pair]:
    """Copies in a pairs folder, with its manifest once all are there."""
    save_manifest(folder, concept=None, settings=settings, pairs=[], name=PARTIAL)
    pairs = []
    with progress(f"pairs: {what}", len(sources), quiet=quiet) as report:
        for entry in sources:
            pairs.append(_copy(entry, folder))
            report(len(pairs))
    save_manifest(folder, concept=None, settings=settings, pairs=pairs)
    (folder / PARTIAL).unlink(missing_ok=True)
    return sorted(pairs, key=lambda pair: pair.name)


def _judge(source: Path, sources: Sequence[_Source], detector: Detector, *, trust: bool, quiet: bool) -> list[_Source]:
    """The pairs with their scores; sides that look swapped are refused unless they are trusted."""
    verdicts = judge_sides(detector, [(entry.unsafe, entry.safe) for entry in sources], quiet=quiet)
    counts = count_sides(verdicts, [entry.pair for entry in sources])
    if not trust:
        check_sides(counts, source)
    if not quiet:
        report_sides(verdicts, counts)
    return [dataclasses.replace(entry, pair=verdicts.with_scores(entry.pair, i)) for i, entry in enumerate(sources)]


def _find(source: Path) -> list[_Source]:
    if not source.exists():
        raise DuoError(f"there is no {source}", hint=f"give {_LAYOUT}")
    if source.is_file():
        found = _from_manifest(source)
    elif (source / MANIFEST).exists():
        found = _from_manifest(source / MANIFEST)
    else:
        found = _from_folders(source)
    if not found:
        raise DuoError(f"there are no pairs in {source}", got="nothing in it", hint=f"give {_LAYOUT}")
    return found


def _from_folders(source: Path) -> list[_Source]:
    sides = {}
    for side in ("unsafe", "safe"):
        if not (source / side).is_dir():
            raise DuoError(f"{source} is no folder of pairs", got=f"no folder {side}/ in it", hint=f"give {_LAYOUT}")
        sides[side] = _by_stem(source / side)
    unsafe, safe = sides["unsafe"], sides["safe"]
    alone = [f"safe/{name} (of unsafe/{unsafe[name].name})" for name in sorted(set(unsafe) - set(safe))]
    alone += [f"unsafe/{name} (of safe/{safe[name].name})" for name in sorted(set(safe) - set(unsafe))]
    if alone:
        hint = "add the missing files, or take their partners away"
        raise DuoError(f"members of pairs are missing in {source}", got=several(alone), hint=hint)
    for name in unsafe:
        check_pair_name(source, name)
    return [_source(unsafe[name], safe[name], name) for name in sorted(unsafe)]


def _by_stem(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.stem in found:
            got = f"{found[path.stem].name} and {path.name}"
            raise DuoError(
                f"two files in {folder} have the same name but for the extension", got=got, hint="rename one"
            )
        found[path.stem] = path
    return found


def _source(unsafe: Path, safe: Path, name: str) -> _Source:
    for path in (unsafe, safe):
        if not is_regular(path):
            raise DuoError(f"{path} is not a file", hint="unsafe/ and safe/ hold image files only")
    return _Source(unsafe, safe, Pair(name, str(unsafe), str(safe), sha256_of(unsafe), sha256_of(safe)))


def _from_manifest(path: Path) -> list[_Source]:
    entries = read_own_manifest(path)
    files = [path.parent / entry[side] for entry in entries for side in ("unsafe", "safe")]
    if missing := [str(file) for file in files if not is_regular(file)]:
        raise DuoError(
            f"files that {path} names are missing", got=", ".join(missing), hint="add them, or remove the entries"
        )
    found = []
    for entry in entries:
        here = _source(path.parent / entry["unsafe"], path.parent / entry["safe"], entry["name"])
        hashes = {"unsafe_sha256": here.pair.unsafe_sha256, "safe_sha256": here.pair.safe_sha256}
        for side, digest in hashes.items():
            if entry[side] not in (None, digest):
                got = f"{side} of pair {entry['name']}"
                raise DuoError(f"an image is not the one that {path} names", got=got, hint="correct or remove the hash")
        found.append(dataclasses.replace(here, pair=Pair(**(entry | hashes))))
    return found


def _digest(sources: Sequence[_Source]) -> str:
    """SHA-256 over all that is imported, whatever path it comes from."""
    described = [dataclasses.asdict(s.pair) | {"unsafe": "", "safe": ""} for s in sources]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _check_images(sources: Sequence[_Source]) -> None:
    """Open every image once, and refuse members that cannot be a pair's; those of one kind are named together."""
    identical: list[str] = []
    flat: list[str] = []
    for entry in sources:
        unsafe, safe = open_image(entry.unsafe), open_image(entry.safe)
        _check_shapes(entry, unsafe.size, safe.size)
        flat += [str(path) for path, image in ((entry.unsafe, unsafe), (entry.safe, safe)) if image_fault(image)]
        if unsafe.size == safe.size and unsafe.tobytes() == safe.tobytes():
            identical.append(entry.pair.name)
    if flat:
        hint = "replace them, or take their pairs away"
        raise DuoError("images of one colour are no members of a pair", got=_list(flat), hint=hint)
    if identical:
        hint = "the safe member must show the same scene without the concept; replace it, or take the pair away"
        raise DuoError("both members of a pair are the same image", got=_list(identical), hint=hint)


def _list(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _check_shapes(entry: _Source, unsafe: tuple[int, int], safe: tuple[int, int]) -> None:
    if abs(unsafe[0] * safe[1] / (unsafe[1] * safe[0]) - 1) > RATIO_TOLERANCE:
        raise DuoError(
            f"the members of pair {entry.pair.name} have different aspect ratios",
            got=f"{entry.unsafe} {unsafe[0]}×{unsafe[1]}, {entry.safe} {safe[0]}×{safe[1]}",
            hint="crop them to the same shape; both members must show the same view",
        )


def _copy(entry: _Source, folder: Path) -> Pair:
    unsafe, safe = f"unsafe/{entry.pair.name}.png", f"safe/{entry.pair.name}.png"
    return dataclasses.replace(
        entry.pair,
        unsafe=unsafe,
        safe=safe,
        unsafe_sha256=save_png(open_image(entry.unsafe), folder / unsafe),
        safe_sha256=save_png(open_image(entry.safe), folder / safe),
    )
