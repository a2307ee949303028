"""What an edit is: a change of a model's weights that has a name, a hash and a strength, and that comes off again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Final, Literal, Protocol

from ..families.interface import Model, Switch

Kind = Literal["lora", "low-rank", "weights"]
"""lora: an adapter beside the denoiser's layers. low-rank: an exact change of rank r of named weights. weights: a full
change of named weights, of the denoiser or of a text encoder."""


KINDS: Final[dict[Kind, str]] = {
    "lora": "an adapter",
    "low-rank": "a low-rank change of weights",
    "weights": "a full change of weights",
}
"""What each kind is called in messages."""


class Edit(Protocol):
    """One change of a model. Several act in the order in which they are entered."""

    @property
    def name(self) -> str:
        """The name of the edit within its system, e.g. "duo"."""
        ...

    @property
    def kind(self) -> Kind:
        """Which kind of change it is."""
        ...

    @property
    def sha256(self) -> str:
        """The SHA-256 of the file that holds it, in hexadecimal."""
        ...

    @property
    def strength(self) -> float:
        """What the change is multiplied by: 0 is the base exactly, 1 the edit as it was made."""
        ...

    @property
    def parts(self) -> tuple[str, ...]:
        """The pipeline's parts that it changes, e.g. ("unet",) or ("text_encoder",)."""
        ...

    def changed(self, model: Model) -> int:
        """How many weights of the base it changes, each a number. model: the base, with nothing on."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where it comes from: base, concept, settings, as far as its file says."""
        ...

    def on(self, model: Model) -> AbstractContextManager[None]:
        """A context in which the model has the edit. After it the weights are what they were, bit for bit."""
        ...


@contextlib.contextmanager
def edits_off(model: Model) -> Iterator[None]:
    """The original model inside the block: every edit switched off, no guard at work; all as it was after it.

    Blocks may be nested.
    """
    switches, hooks = model.switches, model.hooks
    for switch in reversed(switches):
        switch.off()
    model.switches, model.hooks = [], []
    try:
        yield
    finally:
        model.switches, model.hooks = switches, hooks
        for switch in switches:
            switch.on()


@contextlib.contextmanager
def switched(model: Model, switch: Switch) -> Iterator[None]:
    """An edit's switch on, and known to the model, inside the block."""
    switch.on()
    model.switches = [*model.switches, switch]
    try:
        yield
    finally:
        model.switches = [other for other in model.switches if other is not switch]
        switch.off()
