"""Edits of named weights: exact changes of low rank, or full ones, of the denoiser or of a text encoder."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import DuoError
from ..families.interface import Model, Switch
from .interface import Kind, switched


class LowRank(NamedTuple):
    """ΔW = up · down, exactly. up: (out, rank); down: (rank, in)."""

    up: Tensor
    down: Tensor

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        """W + strength · ΔW, computed in float32, in the weight's own precision."""
        change = strength * (self.up.float() @ self.down.float()).view(weight.shape)
        return (weight.float() + change.to(weight.device)).to(weight.dtype)


class Replacement(NamedTuple):
    """The whole new weight. At strength 1 it is taken as it is, bit for bit."""

    value: Tensor

    def applied(self, weight: Tensor, strength: float) -> Tensor:
        """W + strength · (value − W)."""
        value = self.value.to(weight.device)
        if strength == 1:
            return value.to(weight.dtype)
        return (weight.float() + strength * (value.float() - weight.float())).to(weight.dtype)


Change = LowRank | Replacement


@dataclasses.dataclass(frozen=True)
class WeightEdit:
    """Changes of named weights. changes: "PART.PARAMETER", e.g. "text_encoder.….weight" → its change."""

    name: str
    sha256: str
    path: Path
    changes: Mapping[str, Change]
    provenance: Mapping[str, Any]
    strength: float = 1.0

    @property
    def kind(self) -> Kind:
        """Low-rank when every change is."""
        return "low-rank" if all(isinstance(c, LowRank) for c in self.changes.values()) else "weights"

    @property
    def parts(self) -> tuple[str, ...]:
        """The pipeline's parts that it changes."""
        return tuple(dict.fromkeys(name.partition(".")[0] for name in self.changes))

    def changed(self, model: Model) -> int:
        """Of a whole new weight the numbers that differ from the base's; of a change of low rank all of the weight."""
        return sum(
            int((change.value.to(weight) != weight).sum()) if isinstance(change, Replacement) else weight.numel()
            for weight, change in self.located(model)
        )

    @contextlib.contextmanager
    def on(self, model: Model) -> Iterator[None]:
        """The weights are changed inside the block; the old tensors are put back after it."""
        held = [_Held(parameter, change) for parameter, change in self.located(model)]
        switch = Switch(self.name, self.parts, on=lambda: _put(held, self.strength), off=lambda: _put_back(held))
        with switched(model, switch):
            yield

    def located(self, model: Model) -> list[tuple[Tensor, Change]]:
        """The model's parameters that are changed. A name that it does not have, or another size, is a DuoError."""
        found = []
        for name, change in self.changes.items():
            parameter = locate(model, name)
            shape = change.value.shape if isinstance(change, Replacement) else _shape_of(change, parameter)
            if parameter is None or tuple(shape) != tuple(parameter.shape):
                there = (
                    "no such weight in the model" if parameter is None else f"the model's is {_size(parameter.shape)}"
                )
                got = f"{name}: {_size(shape)}, {there}"
                hint = "load the model that it was made for (--model)"
                raise DuoError(f"the edit {self.path} does not fit the model", got=got, hint=hint)
            found.append((parameter, change))
        return found


class _Held:
    """A parameter, its change, and both of its tensors once they are known."""

    def __init__(self, parameter: Tensor, change: Change) -> None:
        self.parameter, self.change = parameter, change
        self.before: Tensor | None = None
        self.after: Tensor | None = None


def _put(held: list[_Held], strength: float) -> None:
    for entry in held:
        base = entry.parameter.data
        if entry.before is None or entry.before.data_ptr() != base.data_ptr():
            entry.before, entry.after = base, entry.change.applied(base, strength)
        assert entry.after is not None
        entry.parameter.data = entry.after


def _put_back(held: list[_Held]) -> None:
    for entry in reversed(held):
        assert entry.before is not None
        entry.parameter.data = entry.before


def locate(model: Model, name: str) -> Tensor | None:
    """A parameter by its full name, "PART.PARAMETER", also where an adapter lies around its layer; or None."""
    part, _, rest = name.partition(".")
    path, _, last = rest.rpartition(".")
    try:
        module: Any = getattr(model.pipe, part).get_submodule(path)
    except AttributeError:
        return None
    found = getattr(getattr(module, "base_layer", module), last, None)
    return found if isinstance(found, torch.nn.Parameter) else None


def own_weights(model: Model, part: str) -> dict[str, Tensor]:
    """The weights of a part under their plain names, also where adapters lie around its layers."""
    named = getattr(model.pipe, part).named_parameters()
    return {name.replace(".base_layer.", "."): value for name, value in named if ".lora_" not in name}


def own_key(names: Container[str], part: str, key: str) -> str:
    """The model's own name of a weight of a part, which other tools may write with the part's name before it.

    names: those that the part has. transformers 5 left "text_model." out of a CLIP encoder's names, so files with and
    without it are about. A name that the part does not have is given back without the part's own.
    """
    plain = key.removeprefix(f"{part}.")
    candidates = (plain, plain.removeprefix("text_model."), f"text_model.{plain}")
    return next((name for name in candidates if name in names), plain)


def _shape_of(change: LowRank, parameter: Tensor | None) -> tuple[int, ...]:
    plain = (change.up.shape[0], change.down.shape[1])
    size = plain[0] * plain[1]
    # A convolution's weight is changed as the matrix (out, in · height · width).
    matches = parameter is not None and parameter.numel() == size and parameter.shape[0] == plain[0]
    return tuple(parameter.shape) if matches and parameter is not None else plain


def _size(shape: Any) -> str:
    return "×".join(map(str, shape)) or "a number"
