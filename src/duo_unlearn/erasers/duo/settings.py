"""The settings of DUO's training: the objective and the optimizer. Defaults are the authors' for nudity on SD1.4."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ...records import Captions, Decay, Pairing, Sides, Targets
from ...storage.forms import LATER, Strict


class ObjectiveSettings(Strict):
    """The objective, the adapter and the optimizer."""

    beta: float = Field(500.0, gt=0, description="β of the preference term; smaller forgets more (paper: 500).")
    prior_weight: float = Field(5e6, ge=0, description="λ of the prior term (authors at β 500: 5e6); 0 turns it off.")
    learning_rate: float = Field(6e-5, gt=0, description="Of AdamW (authors at β 500: 6e-5).")
    lr_scheduler: Decay = Field(
        "constant", description="constant (authors), or down to 0 at the last step: linear, cosine."
    )
    max_train_steps: int = Field(1000, ge=1, description="Optimizer steps (authors: 1000).")
    train_batch_size: int = Field(4, ge=1, description="Pairs a step on each process (authors: 4).")
    rank: int = Field(32, ge=1, description="LoRA rank; alpha is the same (authors: 32).")
    adapter_targets: Targets = Field(
        "self-attention", description="Layers with an adapter: self-attention (authors; image stream) or all-attention."
    )
    adam_weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay (authors: 1e-2).")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient clipping (authors: 1.0).")
    max_timestep: int = Field(750, ge=1, le=1000, description="t is drawn from 0 to below this (authors: 750).")
    share_timestep: bool = Field(True, description="Both members of a pair get the same t (less variance).")
    sides: Sides = Field("both", description="both; safe or unsafe: the gradient of that member alone.")
    pairing: Pairing = Field("paired", description="unpaired: the members are judged apart, each against zero.")
    mixed_precision: Literal["no", "fp16", "bf16"] = Field("no", description="Of the denoiser's forward pass.")
    gradient_checkpointing: bool = Field(
        False, description="Less memory for about a third more time a step, also of attacks that go through gradients."
    )
    compile: Annotated[bool, LATER] = Field(
        False,
        description="Compile the denoiser's blocks that repeat while it is trained: faster on a GPU from some hundred "
        "steps on; the same but for rounding.",
    )


class TrainSettings(ObjectiveSettings):
    """DUO's training: the objective, and what its terms read."""

    prior_every: Annotated[int, LATER] = Field(
        1, ge=1, description="The prior term in one step of so many, with as many times its weight; 1: in every step."
    )
    reference_bank: Annotated[int, LATER] = Field(
        0,
        ge=0,
        description="Fixed draws of t and noise a pair, for which the reference is asked once, in cache/; 0: new draws "
        "at every step.",
    )
    gradient_accumulation_steps: int = Field(1, ge=1, description="Batches a step.")
    captions: Captions = Field(
        "none",
        description="none: the empty prompt for every term (paper); unsafe: both members under the unsafe prompt "
        "(Diffusion-DPO's way); dual: each member under its own prompt.",
    )
    caption_dropout: float = Field(
        0.0, ge=0, le=1, description="Share of pairs that get the empty prompt all the same, when captions is not none."
    )
    checkpointing_steps: int = Field(
        50, ge=1, description="Steps between checkpoints, and between looks at the pairs that are held out."
    )
    keep_checkpoints: int = Field(
        3, ge=0, description="Adapters of that many last checkpoints, and of the best one, stay: duo evaluate --step."
    )
    preview_steps: int = Field(125, ge=0, description="Steps between previews: four pictures each; 0: none.")
    report_to: str | None = Field(None, description="A tracker of accelerate's, e.g. tensorboard or wandb.")
