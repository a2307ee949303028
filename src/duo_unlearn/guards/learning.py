"""What a guard learns of a run, once: kept in a file by its key, and read from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from .interface import Context

if TYPE_CHECKING:
    from torch import Tensor

    from ..runs.search_state import SearchState


def learnt(
    context: Context, name: str, key: str, learn: Callable[[SearchState], Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    """The tensors that `learn` gives, read where they are there. Of several processes one learns, the others wait.

    name: of the guard. key: what decides the tensors, SHA-256. learn(state): goes on from the state of a killed one.
    """
    from ..runs.search_state import SearchState
    from ..storage.files import read_tensors, write_tensors

    path = context.folder / f"{name}-{key[:16]}.safetensors"
    with context.claim(path.stem):
        if not path.exists():
            state = SearchState(path.with_name(f"{path.stem}.state.safetensors"), key)
            write_tensors(path, learn(state))
            state.clear()
    return read_tensors(path)[0]
