"""Files that are whole or absent: atomic writes, careful reads, tensors with metadata, hashes.

Everything is JSON, YAML, text, PNG or safetensors; nothing is ever pickled. What cannot be read is a DuoError.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import DuoError
from .moves import patiently, put, remove, replace

if TYPE_CHECKING:
    import torch

PICKLES: Final = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
"""Endings of files that are pickles: reading one would run whatever code is in it."""
_PICKLE_STARTS: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_RESTORE: Final = "restore the file or start anew"
Objects = Callable[[list[tuple[str, Any]]], dict[str, Any]]
_AGAIN: Final = "delete the file to have it made again, or restore it"


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which replaces it when the block ends well, and is removed otherwise.

    The file's contents reach the disk before the name does, so a killed process leaves the old file or the new
    one. Its name is drawn: processes of two containers may have one number. What cannot be written is a DuoError.
    """
    temporary, is_replaced = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part"), False
    try:
        with write_faults(path):
            if "\0" in str(path):
                raise OSError(errno.EINVAL, "the name has a NUL character")
            if not path.parent.is_dir():  # on a network file system a look is cheaper than the call
                path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            put(temporary, path)
            is_replaced = True
    finally:
        if not is_replaced:
            with contextlib.suppress(OSError, ValueError):
                remove(temporary)


@contextlib.contextmanager
def write_faults(path: Path) -> Iterator[None]:
    """Tell what goes wrong inside the block as a DuoError of writing `path`; what is no fault of writing goes on."""
    try:
        yield
    except OSError as error:
        raise _write_error(path, error) from error
    except UnicodeEncodeError as error:  # half a surrogate: of a shell, what is not UTF-8
        got, hint = repr(error.object)[:120], "type the text again, in a terminal that sends UTF-8"
        raise DuoError(f"cannot write {printable(path)}: a text in it is not UTF-8", got=got, hint=hint) from error
    except Exception as error:
        # safetensors (Rust) reports a full disk as its own exception type.
        if (found := re.search(r"(?:os error|Os { code:) (\d+)", str(error))) is None:
            raise
        raise _write_error(path, OSError(int(found[1]), os.strerror(int(found[1])))) from error


def _write_error(path: Path, error: OSError) -> DuoError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space and run the same command again; what was finished is kept"
        return DuoError(f"cannot write {printable(path)}: the disk is full", hint=hint)
    got = error.strerror or str(error)
    if isinstance(error, FileExistsError) and not path.parent.is_dir():  # that is how mkdir tells of it
        got = "a file in the place of its folder"
    return DuoError(f"cannot write {printable(path)}", got=got, hint="choose another output folder")


def printable(path: Path) -> str:
    """A path as messages print it: escaped where it has control characters, cut where it is very long."""
    text = str(path)
    text = text if text.isprintable() else repr(text)[1:-1]
    return text if len(text) <= 300 else f"{text[:200]}…{text[-60:]}"


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file of these parts atomically."""
    with atomic(path) as temporary, temporary.open("wb") as handle:
        handle.writelines(parts)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented, keys in the order given. Its text is never whole in memory."""
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as handle:
        json.dump(content, handle, indent=1, ensure_ascii=False)
        handle.write("\n")


def is_regular(path: Path) -> bool:
    """Whether a path is a regular file; also False for a name that no file can have."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def check_regular(path: Path, what: str = "") -> None:
    """Fail unless a path is a regular file: opening a pipe would wait without end. what: e.g. "settings file"."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        raise _read_error(path, what, error) from error
    if not stat.S_ISREG(mode):
        got = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise DuoError(f"cannot read {_title(path, what)}", got=got, hint="name a regular file")


def _title(path: Path, what: str) -> str:
    return f"the {what} {printable(path)}" if what else printable(path)


def _read_error(path: Path, what: str, error: Exception) -> DuoError:
    got = getattr(error, "strerror", None) or str(error)
    return DuoError(f"cannot read {_title(path, what)}", got=got, hint="check the path and its permissions")


def read_bytes(path: Path, what: str = "", most: int | None = None) -> bytes:
    """The content of a regular file. what: names it in messages; most: how many bytes it may have.

    DuoError: it is missing, no regular file, larger, or its name cannot be one.
    """
    check_regular(path, what)
    try:
        if most is not None and (size := path.stat().st_size) > most:
            raise DuoError(f"{_title(path, what)} is too large", got=f"{size} bytes", hint=f"at most {most} bytes")
        return patiently(path.read_bytes)  # it may just be replaced
    except OSError as error:
        raise _read_error(path, what, error) from error


def read_json(path: Path, hint: str = _RESTORE, objects: Objects | None = None) -> Any:
    """Read JSON; a file that is missing or broken is a DuoError with that hint.

    objects: makes what stands for a JSON object, of its entries; None: a dict.
    """
    content = read_bytes(path)
    try:
        text = content.decode()
        del content  # beside the text it would be in memory once more
        return json.loads(text, object_pairs_hook=objects)
    except (ValueError, RecursionError) as error:
        got = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise DuoError(f"{printable(path)} is not valid JSON", got=got, hint=hint) from error


def read_object(path: Path, hint: str = _RESTORE, objects: Objects | None = None) -> dict[str, Any]:
    """Read a JSON file that holds an object, {"name": value, …}; any other content is a DuoError with that hint.

    objects: see `read_json`.
    """
    content = read_json(path, hint, objects)
    if not isinstance(content, dict):
        got = {list: "a list", str: "a string", type(None): "null"}.get(type(content), "a number or truth value")
        raise DuoError(f"{printable(path)} holds no JSON object", got=got, hint=hint)
    return content


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically. The same content gives the same bytes."""
    from safetensors.torch import save

    # None: the library writes a broken header for no tensors beside an empty dict.
    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, dict(metadata) if metadata else None)
    write_bytes(path, *_ordered_header(content))


def _ordered_header(content: bytes) -> list[bytes | memoryview]:
    """A safetensors file in parts, its metadata in order: the library's order changes from process to process."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, memoryview(content)[end:]]


def read_tensors(
    path: Path, *, finite: bool = True, hint: str = _AGAIN
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    DuoError: the file is missing or broken, it is a pickle, or a floating tensor holds NaN or infinity. finite=False
    leaves the last check out. hint: what to do about a broken one.
    """
    from safetensors import SafetensorError, safe_open

    check_regular(path)
    if path.suffix in PICKLES:
        raise _pickle_error(path)
    try:
        with safe_open(path, framework="pt") as handle:
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
            metadata = dict(handle.metadata() or {})
    except (SafetensorError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        if _starts_as_pickle(path):
            raise _pickle_error(path) from error
        raise DuoError(f"cannot read {printable(path)} as safetensors", got=str(error)[:200], hint=hint) from error
    if finite:
        _check_finite(path, tensors, hint)
    return tensors, metadata


def _pickle_error(path: Path) -> DuoError:
    hint = "convert it to .safetensors where you trust it"
    return DuoError(f"{printable(path)} is a pickle that could run code", got="no safetensors", hint=hint)


def _starts_as_pickle(path: Path) -> bool:
    with path.open("rb") as handle:
        return handle.read(4).startswith(_PICKLE_STARTS)


def _check_finite(path: Path, tensors: Mapping[str, torch.Tensor], hint: str) -> None:
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            continue
        wide = tensor if tensor.element_size() > 1 else tensor.float()  # of 8-bit floats torch cannot tell
        if count := int((~wide.isfinite()).sum()):
            got = f"{count} of {tensor.numel()} values of {name!r} are NaN or infinite"
            raise DuoError(f"{printable(path)} holds numbers that are not finite", got=got, hint=hint)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    check_regular(path)
    total = hashlib.sha256()
    try:
        with path.open("rb") as handle:
            while chunk := handle.read(1 << 20):
                total.update(chunk)
    except OSError as error:
        raise _read_error(path, "", error) from error
    return total.hexdigest()


def digest(value: Any) -> str:
    """The SHA-256 of plain values (numbers, strings, lists, mappings, None), in hexadecimal.

    It is taken over canonical JSON with sorted keys, so it is the same in every process. It makes the keys of results.
    """
    total = hashlib.sha256()
    for piece in _canonical(value, 2):
        total.update(piece.encode())
    return total.hexdigest()


def _canonical(value: Any, depth: int) -> Iterator[str]:
    """Canonical JSON with sorted keys, in pieces: the entries of containers down to some depth."""
    entries: Iterable[tuple[str, Any]]
    if depth and isinstance(value, dict) and all(isinstance(key, str) for key in value):
        (start, end), entries = "{}", ((f"{json.dumps(key)}:", value[key]) for key in sorted(value))
    elif depth and isinstance(value, list | tuple):
        (start, end), entries = "[]", (("", entry) for entry in value)
    else:
        yield json.dumps(value, sort_keys=True, separators=(",", ":"))
        return
    yield start
    for i, (name, entry) in enumerate(entries):
        yield f",{name}" if i else name
        yield from _canonical(entry, depth - 1)
    yield end


def seed_of(*parts: object) -> int:
    """A seed below 2³¹ that is a function of its parts, the same on every machine."""
    return zlib.crc32("/".join(map(str, parts)).encode()) & 0x7FFFFFFF


def set_aside(path: Path) -> Path:
    """Rename a broken file that can be made again to NAME.broken; gives the new path. An older one is replaced."""
    aside = path.with_name(f"{path.name}.broken")
    try:
        replace(path, aside)
    except OSError as error:
        raise _write_error(aside, error) from error
    return aside
