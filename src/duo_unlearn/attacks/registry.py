"""The attacks that there are. One that joins adds a file and its line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..registry import Registry

if TYPE_CHECKING:
    from .interface import Attack

ATTACKS: Final[Registry[Attack]] = Registry(
    "attack",
    {
        "direct": "attacks.direct:DIRECT",
        "ring-a-bell": "attacks.ring_a_bell:RING_A_BELL",
        "sneakyprompt": "attacks.sneaky_prompt:SNEAKY_PROMPT",
        "concept-inversion": "attacks.inversion:CONCEPT_INVERSION",
        "soft-prompt": "attacks.soft_prompt:SOFT_PROMPT",
        "unlearndiffatk": "attacks.unlearn_diff:UNLEARN_DIFF_ATK",
        "random-prefix": "attacks.random_prefix:RANDOM_PREFIX",
        "p4d": "attacks.p4d:P4D_N",
        "p4d-k": "attacks.p4d:P4D_K",
        "p4d-detector": "attacks.p4d:P4D_N_DETECTOR",
        "p4d-k-detector": "attacks.p4d:P4D_K_DETECTOR",
        "image-to-image": "attacks.image_to_image:HALF",
        "image-to-image-empty": "attacks.image_to_image:HALF_EMPTY",
        "image-to-image-30": "attacks.image_to_image:THIRTY",
        "image-to-image-empty-30": "attacks.image_to_image:THIRTY_EMPTY",
        "tina": "attacks.tina:TINA",
        "inpainting": "attacks.inpainting:INPAINTING",
        "noise-search": "attacks.noise_search:NOISE_SEARCH",
        "completion": "attacks.completion:COMPLETION",
        "relearning-concept-20": "attacks.relearning:CONCEPT_20",
        "relearning-concept-100": "attacks.relearning:CONCEPT_100",
        "relearning-concept-100-of-20": "attacks.relearning:CONCEPT_100_OF_20",
        "relearning-concept-100-of-50": "attacks.relearning:CONCEPT_100_OF_50",
        "relearning-concept-300": "attacks.relearning:CONCEPT_300",
        "relearning-adapter-100": "attacks.relearning:ADAPTER_100",
        "relearning-benign-300": "attacks.relearning:BENIGN_300",
        "edit-removal": "attacks.edit_removal:EDIT_REMOVAL",
    },
)


def caption_attacks() -> dict[str, Attack]:
    """Those whose findings are read in a prompt's place, by name."""
    return {name: attack for name in ATTACKS.names() if (attack := ATTACKS.get(name)).finds_captions}


def counts_in_worst_case(name: str) -> bool:
    """Whether an attack's outcomes count in a system's worst case. One of a newer version, unknown here, does not."""
    return name in ATTACKS.names() and ATTACKS.get(name).counts_in_worst_case
