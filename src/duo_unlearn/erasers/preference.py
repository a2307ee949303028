"""Diffusion-DPO (2311.12908) and DCPO (2502.06023) as erasers: DUO's training, with their settings.

With l the per-sample error, θ the student and φ the frozen model, both minimise over pairs (x⁺, c⁺), (x⁻, c⁻)

    −log σ(−½ β_dpo [(l_θ(x⁺, c⁺) − l_θ(x⁻, c⁻)) − (l_φ(x⁺, c⁺) − l_φ(x⁻, c⁻))])

DUO's objective is −log σ(−β [m⁺ − m⁻]) with m = l_θ − l_φ of each member, which is the same bracket, so β = ½ β_dpo. In
Diffusion-DPO both members have the same caption, here the unsafe prompt: under it the safe picture is preferred. In
DCPO (Dual Caption Preference Optimization) each has its own. Neither has DUO's prior term.

What departs: the student is a LoRA, not the whole network, so the learning rate is DUO's rule for it, 3e-2 / β, without
the published warm-up. The DCPO script asks v-prediction models for the noise; here a model is asked for what it
predicts.
"""

from __future__ import annotations

from typing import Final

from pydantic import Field

from ..records import Captions
from .duo.eraser import preference_eraser
from .duo.settings import TrainSettings

OWN_PROMPT: Final = (
    "unsafe: both members under the unsafe prompt (Diffusion-DPO); dual: each member under its own (DCPO); none: the "
    "empty prompt for both."
)
LEARNING_RATE: Final = "Of AdamW, on the adapter: DUO's rule 3e-2 / β (published, for whole networks: {})."


class DiffusionDpoSettings(TrainSettings):
    """DUO's settings with Diffusion-DPO's values."""

    beta: float = Field(2500.0, gt=0, description="β, half of β_dpo (published β_dpo: 5000; the paper on SD1.5: 2000).")
    prior_weight: float = Field(0.0, ge=0, description="λ of DUO's prior term; 0: none (published).")
    learning_rate: float = Field(1.2e-5, gt=0, description=LEARNING_RATE.format("1e-8 times 2048 pairs a step"))
    max_train_steps: int = Field(2000, ge=1, description="Optimizer steps (published: 2000 on SD1.5).")
    max_timestep: int = Field(1000, ge=1, le=1000, description="t is drawn from 0 to below this (published: all).")
    captions: Captions = Field("unsafe", description=OWN_PROMPT)
    caption_dropout: float = Field(
        0.2, ge=0, le=1, description="Share of pairs that get the empty prompt all the same (published: 0.2)."
    )


class DcpoSettings(TrainSettings):
    """DUO's settings with DCPO's values."""

    beta: float = Field(250.0, gt=0, description="β, half of β_dpo (published β_dpo: 500).")
    prior_weight: float = Field(0.0, ge=0, description="λ of DUO's prior term; 0: none (published).")
    learning_rate: float = Field(1.2e-4, gt=0, description=LEARNING_RATE.format("1e-8 times 128 pairs a step"))
    max_train_steps: int = Field(2000, ge=1, description="Optimizer steps (published: 2000).")
    max_timestep: int = Field(1000, ge=1, le=1000, description="t is drawn from 0 to below this (published: all).")
    captions: Captions = Field("dual", description=OWN_PROMPT)


DIFFUSION_DPO: Final = preference_eraser(
    "diffusion-dpo",
    "Diffusion-DPO: the safe picture preferred under the unsafe prompt",
    DiffusionDpoSettings,
    "images and prompts",
    "latents-diffusion-dpo.safetensors",
)
DCPO: Final = preference_eraser(
    "dcpo",
    "DCPO: each picture preferred under its own caption",
    DcpoSettings,
    "images and prompts",
    "latents-dcpo.safetensors",
)
