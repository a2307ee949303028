"""The ledger: which edit was trained on which pairs, so that data can be deleted exactly (S3T, arXiv 2406.16257).

Edits that are trained apart, a concept or a slice of pairs each, and added up exactly can be left out one by one. What
is left is, bit for bit, what had never seen the data. Where a pair is deleted, only the edits that saw it are trained
again. This deletes data. It erases no concept that other pairs or the base model know.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..edits.provenance import edit_hash, edit_names, read_provenance
from ..errors import DuoError
from ..pairs.manifest import MANIFEST, read_entries
from ..records import Pair
from ..runs.folder import Run
from ..settings.source import EditSource, edit_source

SHORTEST_HASH = 8
"""Digits of a SHA-256 that a pair may be named by, at least."""


class Entry(NamedTuple):
    """An edit of the ledger. source: what named it. pairs: the SHA-256 of both images of each pair that it saw.

    names: of these pairs in the run, where it is at hand. on: hashes of the edits that it was trained on top of. bank:
    of those that attacks asked, whose finds it read as captions.
    """

    source: Path
    edit: str
    sha256: str
    concept: str
    pairs: list[tuple[str, str]]
    names: dict[str, tuple[str, str]]
    on: list[str]
    bank: Sequence[str] = ()

    @property
    def stands_on(self) -> set[str]:
        """Hashes of all edits that it would be another one without."""
        return {*self.on, *self.bank}

    def as_json(self) -> dict[str, Any]:
        """For a file and for --json."""
        return {**self._asdict(), "source": str(self.source)}


def read_ledger(sources: Sequence[Path]) -> list[Entry]:
    """An entry an edit, of run folders or of edits by themselves. One that does not say what it saw is a DuoError."""
    return [_entry(source, edit_source(source)) for source in sources]


def _entry(source: Path, found: EditSource) -> Entry:
    folder = found.place if found.place.is_dir() else found.place.parent
    provenance = read_provenance(folder)
    seen = provenance.get("pairs")
    if not isinstance(seen, list):
        hint = "an edit that this version made: `duo train`; a sum is read by its parts"
        raise DuoError(
            f"{source} does not say which pairs it was trained on", got="no pairs in its provenance", hint=hint
        )
    pairs = [(str(unsafe), str(safe)) for unsafe, safe in seen]
    listed = _listed(found.run) if found.run is not None else []
    hashes = {pair.name: (pair.unsafe_sha256, pair.safe_sha256) for pair in listed}
    names = {name: both for name, both in hashes.items() if both in set(pairs)}
    on = [str(base["sha256"]) for base in provenance.get("on", [])]
    bank = _attacked(provenance, found.run)
    return Entry(source, found.name, edit_hash(folder), str(provenance.get("concept", "?")), pairs, names, on, bank)


def _listed(run: Run) -> list[Pair]:
    """The pairs that a run lists, dropped ones too. Of a slice also those of the whole run.

    A slice that was dealt anew and not trained yet has an edit that saw a pair which the slice lists no longer.
    """
    place = run.folder.resolve().parent
    whole = _listed(Run(place.parent)) if place.name == run.slices.name else []
    return whole + (read_entries(run.pairs).pairs if (run.pairs / MANIFEST).exists() else [])


def _attacked(provenance: Mapping[str, Any], run: Run | None) -> list[str]:
    """Hashes of the edits that attacks asked to fill an edit's bank; of an earlier round, also what its own bank is of.

    A round's bank says of the rounds before it only that they were.
    """
    system = provenance.get("bank", {}).get("system", {})
    found = [str(edit["sha256"]) for edit in system.get("edits", [])]
    if run is not None and found:
        for folder in _edits_of(run, found):
            found += _attacked(read_provenance(folder), run)
    return list(dict.fromkeys(found))


def _edits_of(run: Run, hashes: Collection[str]) -> list[Path]:
    """The folders of a run's edits that have one of these hashes."""
    folders = [run.edit(name) for name in edit_names(run.edits)]
    return [folder for folder in folders if read_provenance(folder).get("sha256") in hashes]


def with_below(entries: Sequence[Entry]) -> list[Entry]:
    """Every entry behind those edits of its own run that it stands on: its floor, and earlier rounds. Each is once."""
    known, whole = {entry.sha256 for entry in entries}, []
    for entry in entries:
        run = edit_source(entry.source).run if entry.stands_on else None
        for folder in _edits_of(run, entry.stands_on - known) if run is not None else []:
            whole.append(_entry(folder, edit_source(folder)))
            known.add(whole[-1].sha256)
        whole.append(entry)
    return whole


def holders(entries: Sequence[Entry], pair: str) -> list[Entry]:
    """The edits that saw a pair, which must be trained again where it is deleted; and those that stand on these.

    pair: its name in a run, or the first digits of an image's SHA-256. One that no edit saw is a DuoError.
    """
    saw = [entry for entry in entries if _holds(entry, pair)]
    if not saw:
        hint = f"a pair's name in one of the runs, or {SHORTEST_HASH} digits or more of an image's SHA-256"
        raise DuoError("no edit of the ledger saw this pair", got=pair, hint=hint)
    return with_dependents(entries, saw)


def namesakes(entries: Sequence[Entry], pair: str) -> list[str]:
    """The first digits of the unsafe image of each pair of a name, where several runs have one; else none."""
    found = dict.fromkeys(entry.names[pair][0] for entry in entries if pair in entry.names)
    return [image[:SHORTEST_HASH] for image in found] if len(found) > 1 else []


def _holds(entry: Entry, pair: str) -> bool:
    if pair in entry.names:
        return True
    return len(pair) >= SHORTEST_HASH and any(image.startswith(pair) for both in entry.pairs for image in both)


def with_dependents(entries: Sequence[Entry], chosen: Sequence[Entry]) -> list[Entry]:
    """Some edits, and all that stand on them, in the order of the ledger."""
    gone = {entry.sha256 for entry in chosen}
    while more := [e for e in entries if e.sha256 not in gone and gone & e.stands_on]:
        gone |= {entry.sha256 for entry in more}
    return [entry for entry in entries if entry.sha256 in gone]


def remaining(entries: Sequence[Entry], without: Sequence[Path]) -> list[Entry]:
    """What is left when some edits are dropped, and all that stand on them. An unknown source is a DuoError."""
    known = {entry.source.resolve(): entry for entry in entries}
    if unknown := [source for source in without if source.resolve() not in known]:
        hint = f"one of: {', '.join(str(entry.source) for entry in entries)}"
        raise DuoError("what is to be left out is not in the ledger", got=str(unknown[0]), hint=hint)
    dropped = with_dependents(entries, [known[source.resolve()] for source in without])
    left = [entry for entry in entries if entry not in dropped]
    if not left:
        raise DuoError(
            "nothing of the ledger is left", got=f"all {len(entries)} edits dropped", hint="keep one at least"
        )
    return left
