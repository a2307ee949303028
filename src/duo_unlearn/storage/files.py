"""Files that are whole or absent: atomic writes, tensors with metadata, hashes.

Everything is JSON, YAML, text, PNG or safetensors; nothing is ever pickled.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DuoError

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which replaces it when the block ends well, and is removed otherwise.

    The file's contents reach the disk before the name does, so a killed process leaves the old file or the new
    one. A full disk or a folder that cannot be written is a DuoError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        raise _write_error(path, error) from error
    except Exception as error:
        # safetensors (Rust) reports a full disk as its own exception type.
        if "No space left" in str(error) or "os error 28" in str(error):
            raise _write_error(path, OSError(errno.ENOSPC, "No space left on device")) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_error(path: Path, error: OSError) -> DuoError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space and run the same command again; what was finished is kept"
        return DuoError(f"cannot write {path}: the disk is full", hint=hint)
    return DuoError(f"cannot write {path}", got=error.strerror or str(error), hint="choose another output folder")


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(path, content.encode())


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented, keys in the order given."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; a file that is missing or broken is a DuoError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DuoError(f"cannot read {path}", got=error.strerror or str(error)) from error
    except ValueError as error:
        raise DuoError(f"{path} is not valid JSON", got=str(error), hint="restore the file or start anew") from error


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically. The same content gives the same bytes."""
    from safetensors.torch import save

    content = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, dict(metadata or {}))
    write_bytes(path, _ordered_header(content))


def _ordered_header(content: bytes) -> bytes:
    """A safetensors file with its metadata in order: the library writes them in an order that changes by process."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file; a broken one is a DuoError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            return {key: handle.get_tensor(key) for key in handle.keys()}, dict(handle.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        hint = "delete the file to have it made again, or restore it"
        raise DuoError(f"cannot read {path} as safetensors", got=str(error), hint=hint) from error


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as handle:
            while chunk := handle.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise DuoError(f"cannot read {path}", got=error.strerror or str(error)) from error
    return digest.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """An optimizer's state as named tensors: "INDEX.NAME", the index counting its parameters."""
    import torch

    state = optimizer.state_dict()["state"]
    return {f"{i}.{name}": torch.as_tensor(value) for i, entry in state.items() for name, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Put back what `optimizer_tensors` gave. The parameter groups keep their own settings."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
