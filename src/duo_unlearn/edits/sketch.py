"""A sketch of a change of weights: a few random projections of each changed weight, by which two changes are compared.

s_k(ΔW) = u_kᵀ ΔW v_k, with signs u, v drawn by the weight's name. It is linear in W, so the sketch of a change is that
of the changed model less that of its base. E s_k² = ‖ΔW‖²_F, so another change has another sketch. A few numbers do
not give the change away: whoever has a merged model and its sketch cannot take the change off again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..families.interface import Model
from .interface import Edit
from .lora import LoraEdit
from .weights import LowRank, WeightEdit, own_weights

PROBES: Final = 3
"""How many projections a weight has."""
Sketch = dict[str, list[float]]
"""Weight's name, "PART.PARAMETER" → its projections."""


class ModelSketch(NamedTuple):
    """The sketch of every weight of a model, and each weight's Frobenius norm without adapters beside it."""

    weights: Sketch
    norms: dict[str, float]


def sketch_of(edits: Sequence[Edit], model: Model) -> Sketch:
    """The sketch of what edits, one after the other, change of a model. model: the base, where none of them acts."""
    total: dict[str, Tensor] = {}
    for edit in edits:
        if isinstance(edit, LoraEdit):
            for name, (down, up) in edit.layers.items():
                _add(total, f"{name}.weight", edit.strength * edit.scale * _low_rank(f"{name}.weight", up, down))
            continue
        assert isinstance(edit, WeightEdit)
        for (parameter, change), name in zip(edit.located(model), edit.changes, strict=True):
            if isinstance(change, LowRank):
                _add(total, name, edit.strength * _low_rank(name, change.up, change.down))
            else:
                before = _project(name, parameter) + total.get(_plain(name), torch.zeros(PROBES, dtype=torch.float64))
                _add(total, name, edit.strength * (_project(name, change.value) - before))
    return {name: value.tolist() for name, value in sorted(total.items())}


def sketch_of_model(model: Model) -> ModelSketch:
    """The sketch of every weight of a model with the adapters that act on it."""
    found: dict[str, Tensor] = {}
    norms: dict[str, float] = {}
    for part in model.kind.parts:
        if getattr(model.pipe, part) is None:
            continue
        for name, value in own_weights(model, part).items():
            key = _plain(f"{part}.{name}")
            found[key] = _project(key, value)
            norms[key] = float(torch.linalg.vector_norm(value.detach().double()))
    for name, down, up, scale in _adapters(model):
        _add(found, name, scale * _low_rank(name, up, down))
    return ModelSketch({name: value.tolist() for name, value in found.items()}, norms)


def why_another(
    wanted: Mapping[str, Sequence[float]], base: ModelSketch, changed: ModelSketch, precision: float
) -> str | None:
    """How a model is not its base with a change, in words; None where it is.

    wanted: the sketch of the change. precision: the machine epsilon of the weights' type: they are rounded to it when
    a change is put into them.
    """
    before, after = base.weights, changed.weights
    if set(before) != set(after):
        odd = sorted(set(before) ^ set(after))
        return f"{len(odd)} weights that the other lacks, e.g. {odd[0]}"
    if absent := sorted(set(wanted) - set(before)):
        return f"the base has no weight {absent[0]}"
    for name, found in after.items():
        change = [new - old for new, old in zip(found, before[name], strict=True)]
        if name not in wanted and any(change):
            return f"{name} differs from the base's, and the edit does not change it"
        expected = wanted.get(name, [0.0] * PROBES)
        # Rounding is a random walk over a weight's numbers: its projection is a third of an epsilon of the norm.
        norm = max(base.norms[name], changed.norms[name])
        allowed = 3 * precision * norm + 1e-4 * max(map(abs, expected))
        off = max(abs(a - b) for a, b in zip(change, expected, strict=True))
        if not off <= allowed:
            return f"{name} is off by {off:.3g} in its sketch (allowed: {allowed:.2g})"
    return None


def _plain(name: str) -> str:
    """A weight's name without what only some releases of transformers have in it."""
    return name.replace("text_model.", "")


def _signs(name: str, side: str, size: int) -> Tensor:
    """PROBES rows of ±1, (probe, size): the bits of SHAKE-256 of the name, the same in every library."""
    rows = []
    for probe in range(PROBES):
        stream = hashlib.shake_256(f"{_plain(name)}/{side}/{probe}".encode()).digest(math.ceil(size / 8))
        rows.append(np.unpackbits(np.frombuffer(stream, dtype=np.uint8))[:size])
    return torch.from_numpy(2.0 * np.stack(rows) - 1.0)


def _project(name: str, weight: Tensor) -> Tensor:
    """u_kᵀ W v_k, (probe,), in float64. A weight of more axes is read as a matrix (out, all others)."""
    matrix = weight.detach().cpu().double().reshape(weight.shape[0] if weight.ndim else 1, -1)
    left, right = _signs(name, "u", matrix.shape[0]), _signs(name, "v", matrix.shape[1])
    return ((left @ matrix) * right).sum(dim=1)


def _low_rank(name: str, up: Tensor, down: Tensor) -> Tensor:
    """The same of up · down, which is not multiplied out."""
    up, down = (value.detach().cpu().double().flatten(1) for value in (up, down))
    left, right = _signs(name, "u", up.shape[0]), _signs(name, "v", down.shape[1])
    return ((left @ up) * (right @ down.T)).sum(dim=1)


def _add(total: dict[str, Tensor], name: str, value: Tensor) -> None:
    key = _plain(name)
    total[key] = total[key] + value if key in total else value


def _adapters(model: Model) -> list[tuple[str, Tensor, Tensor, float]]:
    """(weight's name, down, up, scale) of each layer of each adapter that acts on the denoiser."""
    from peft.tuners.lora import LoraLayer

    found = []
    for name, layer in model.denoiser.named_modules():
        if isinstance(layer, LoraLayer) and not layer.disable_adapters:
            for adapter in layer.active_adapters:
                if adapter in layer.lora_A:
                    module: Any = layer
                    down, up = module.lora_A[adapter].weight, module.lora_B[adapter].weight
                    found.append((f"{model.denoiser_name}.{name}.weight", down, up, float(module.scaling[adapter])))
    return found
