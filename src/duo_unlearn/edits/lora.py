"""The LoRA adapter: attached for training, and as an edit that is switched on and off."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from ..errors import DuoError
from ..families.interface import Model, Switch
from ..records import Targets
from .interface import Kind, switched

NAME: Final = "duo"
"""The adapter that a training attaches."""
Layers = Mapping[str, tuple[Tensor, Tensor]]
"""Layer's name, with the denoiser's prefix → its down (rank, in) and up (out, rank) matrices."""


@dataclasses.dataclass(frozen=True)
class LoraEdit:
    """An adapter of one file. scale: alpha / rank, by which the product of up and down is multiplied.

    prefix: the denoiser's name in the pipeline. config: PEFT's, as far as the file has it.
    """

    name: str
    sha256: str
    path: Path
    layers: Layers
    scale: float
    prefix: str
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    strength: float = 1.0
    kind: Kind = "lora"

    @property
    def parts(self) -> tuple[str, ...]:
        """The denoiser alone."""
        return (self.prefix,)

    def changed(self, _model: Model) -> int:
        """All weights of its layers."""
        return sum(up.shape[0] * down[0].numel() for down, up in self.layers.values())

    @property
    def rank(self) -> int:
        """The largest rank of its layers."""
        return max(down.shape[0] for down, _ in self.layers.values())

    @contextlib.contextmanager
    def on(self, model: Model) -> Iterator[None]:
        """The adapter acts inside the block; outside it lies switched off on the model, for the next time."""
        adapter = f"{self.name}-{self.sha256[:12]}".replace(".", "-")
        _load(model, adapter, self)
        switch = Switch(
            self.name,
            self.parts,
            on=lambda: _activate(model, {**model.adapters, adapter: self.strength}),
            off=lambda: _activate(model, {n: s for n, s in model.adapters.items() if n != adapter}),
        )
        with switched(model, switch):
            yield


def padded(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The matrices with zero rows and columns up to a rank; their product stays."""
    missing = rank - down.shape[0]
    if not missing:
        return down, up
    rows, columns = down.new_zeros(missing, *down.shape[1:]), up.new_zeros(up.shape[0], missing, *up.shape[2:])
    return torch.cat([down, rows]), torch.cat([up, columns], dim=1)


def _load(model: Model, adapter: str, edit: LoraEdit) -> None:
    """Put the adapter on the denoiser under its name, unless it is there already."""
    denoiser: Any = model.denoiser
    if adapter in getattr(denoiser, "peft_config", {}):
        return
    check_layers(model, edit)
    tensors = {f"{name}.lora_A.weight": down for name, (down, _) in edit.layers.items()}
    tensors |= {f"{name}.lora_B.weight": edit.scale * up for name, (_, up) in edit.layers.items()}
    active = dict(model.adapters)
    try:
        with warnings.catch_warnings():
            # PEFT asks whether several adapters are meant. They are.
            warnings.filterwarnings("ignore", "Already found a `peft_config` attribute", UserWarning)
            denoiser.load_lora_adapter(tensors, prefix=edit.prefix, adapter_name=adapter)
    except (ValueError, RuntimeError, KeyError) as error:
        raise DuoError(f"the adapter {edit.path} does not fit the model", got=str(error)[:200]) from error
    finally:
        model.active = {}  # PEFT uses the new one alone now
        _activate(model, active)


def check_layers(model: Model, edit: LoraEdit) -> None:
    """Fail where the adapter names layers that the model does not have, or of other sizes."""
    hint = "load the model that it was made for (--model)"
    if edit.prefix != model.denoiser_name:
        got = f"layers of a {edit.prefix}, a model with a {model.denoiser_name}"
        raise DuoError(f"the adapter {edit.path} does not fit the model", got=got, hint=hint)
    modules = dict(model.denoiser.named_modules())
    for name, (down, up) in edit.layers.items():
        module: Any = modules.get(name.removeprefix(f"{edit.prefix}."))
        weight = getattr(getattr(module, "base_layer", module), "weight", None)
        if not isinstance(weight, Tensor):
            raise DuoError(f"the adapter {edit.path} does not fit the model", got=f"no layer {name}", hint=hint)
        sizes = (up.shape[0], *down.shape[1:])
        if sizes != tuple(weight.shape) or up.shape[1] != down.shape[0]:
            rank = f" of rank {down.shape[0]} and {up.shape[1]}" if up.shape[1] != down.shape[0] else ""
            got = f"{name}: {_size(sizes)}{rank}, the model's is {_size(weight.shape)}"
            raise DuoError(f"the adapter {edit.path} does not fit the model", got=got, hint=hint)


def _size(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _activate(model: Model, adapters: Mapping[str, float]) -> None:
    """Let these adapters act, each at its strength, and no other."""
    before, model.adapters = model.adapters, dict(adapters)
    layers = _tuner_layers(model.denoiser)
    if not adapters:
        for layer in layers:
            layer.enable_adapters(False)
    else:
        if model.active != dict(adapters):
            denoiser: Any = model.denoiser
            denoiser.set_adapters(list(adapters), list(adapters.values()))
            model.active = dict(adapters)
        for layer in layers:
            layer.enable_adapters(True)
    if before or adapters:
        # PEFT lets the parameters of active adapters have gradients; an edit is frozen.
        for layer in layers:
            for name, parameter in layer.named_parameters():
                if "lora_" in name:
                    parameter.requires_grad_(False)


def _tuner_layers(denoiser: nn.Module) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in denoiser.modules() if isinstance(module, BaseTunerLayer)]


def attach(
    model: Model, *, rank: int, seed: int, targets: Targets = "self-attention", layers: Sequence[str] | None = None
) -> list[nn.Parameter]:
    """Put a fresh float32 adapter (alpha = rank, Gaussian A, zero B) on the denoiser; gives its parameters.

    A zero B makes it the identity: the model's output is unchanged until the first step. Only the new adapter's
    tensors are returned and require gradients. layers: the names of those that get it, in place of the targets'.
    """
    from peft import LoraConfig

    layers = list(layers) if layers is not None else model.adapted_layers(targets)
    if not layers:
        raise DuoError("the denoiser has no layer that the adapter could be put on", got=targets)
    config = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser: Any = model.denoiser
        denoiser.add_adapter(config, adapter_name=NAME)
    parameters = []
    for name, parameter in model.denoiser.named_parameters():
        mine = "lora_" in name and f".{NAME}." in name
        parameter.requires_grad_(mine)
        if mine:
            parameter.data = parameter.data.float()
            parameters.append(parameter)
    return parameters


def detach(model: Model) -> None:
    """Take every adapter off the denoiser: it is the plain network again."""
    model.pipe.unload_lora_weights()
    model.adapters, model.active = {}, {}


@contextlib.contextmanager
def adapters_off(denoiser: nn.Module) -> Iterator[None]:
    """The reference of a training: every adapter switched off inside the block, and all as it was after it.

    PEFT's own switches set requires_grad on all active adapters, also on frozen ones, so the flags are put back.
    """
    layers = _tuner_layers(denoiser)
    flags = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    were_on = [not layer.disable_adapters for layer in layers]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer, on in zip(layers, were_on, strict=True):
            layer.enable_adapters(on)
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def adapter_tensors(denoiser: nn.Module) -> dict[str, Tensor]:
    """The trained adapter's tensors under PEFT's names (without the adapter's name)."""
    from peft.utils import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(denoiser, adapter_name=NAME))


def load_adapter_tensors(denoiser: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `adapter_tensors` gave, into an attached adapter."""
    from peft.utils import set_peft_model_state_dict

    set_peft_model_state_dict(denoiser, dict(tensors), adapter_name=NAME)
