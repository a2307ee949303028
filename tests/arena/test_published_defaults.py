"""The default numbers of erasers and guards are those that their authors published."""

from __future__ import annotations

import pytest

from duo_unlearn.erasers.hirm import STRENGTH
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.guards.registry import GUARDS

ESD: dict[str, object] = {"steps": 1000, "batch": 1, "lr": 1e-5, "eta": 1.0, "guidance": 3.0}
PUBLISHED: dict[str, dict[str, object]] = {
    "esd-x": ESD,
    "esd-u": ESD,
    "spm": {
        "steps": 3000, "batch": 1, "lr": 1e-4, "rank": 1, "eta": 1.0, "anchor_weight": 1000.0,
        "guidance": 3.0, "sampling_steps": 30,
    },
    "advunlearn": {
        "steps": 1000, "lr": 1e-5, "eta": 1.0, "warm_up": 200, "renew_every": 1, "attack_tokens": 1,
        "attack_steps": 30, "attack_lr": 1e-3, "retain_batch": 5, "retain_weight": 0.3,
    },
    "stereo": {
        "rounds": 2, "search_steps": 200, "search_lr": 5e-6, "inversion_steps": 3000, "inversion_batch": 1,
        "inversion_lr": 5e-3, "steps": 200, "lr": 2e-5, "anchor_weight": 1.0, "guidance": 3.0,
    },
    "salun": {"lr": 1e-5, "share": 0.5},
    "hirm": {"strength": None},
    "safree": {"mode": "published", "alpha": 0.01, "steps": 10, "slope": 2.5, "middle": 5.333},
    "spell": {"along": "pictures", "strength": 1.6},
    "prototypes": {"steps": 2000, "lr": 5e-2},
}  # fmt: skip
"""Not what is ours in them, nor what departs: the options' descriptions say both."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_defaults_are_the_published_numbers(name: str) -> None:
    settings = (ERASERS if name in ERASERS.names() else GUARDS).get(name).settings()
    assert settings.model_dump(include=set(PUBLISHED[name])) == PUBLISHED[name]


def test_salun_takes_five_epochs_of_its_800_pictures_and_hirm_has_a_strength_for_each_target() -> None:
    salun = ERASERS.get("salun").settings().model_dump()
    assert salun["steps"] * salun["batch"] == 5 * 800
    assert STRENGTH == {"concept": 1.0, "random": 500.0}
