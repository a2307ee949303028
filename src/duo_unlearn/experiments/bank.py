"""A bank of captions for robust DUO: a run's system is attacked on training prompts, and what is found is kept."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..arena.findings import FindingsFile
from ..arena.plans import AttackPlan, attack_plans
from ..arena.stages import attack
from ..attacks.interface import Findings
from ..attacks.registry import ATTACKS
from ..attacks.tensors import conditioning_of
from ..erasers.robust.bank import Caption, write_bank
from ..errors import DuoError
from ..session import Session
from ..storage.files import write_text
from ..system import System

SEARCHES = ("text", "images", "model")
"""What the searches that a bank can be filled by ask."""
FOUND = "training"
"""The scenario of a bank's attacks: prompts of the pairs, which no evaluation asks."""


def fill_bank(
    session: Session,
    system: System,
    attacks: Sequence[str],
    count: int,
    path: Path,
    budgets: Mapping[str, Mapping[str, Any]] | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> Path:
    """Attack a system with quick budgets on `count` of the pairs' unsafe prompts, and write what is found to a bank.

    attacks: searches that give captions; another one is a DuoError. budgets: attack → fields of its budget that are not
    the quick one's. The same command goes on after a kill.
    """
    for name in attacks:
        ATTACKS.check(name)
        if (chosen := ATTACKS.get(name)).found_on not in SEARCHES or chosen.has_control:
            usable = [one for one in ATTACKS.names() if ATTACKS.get(one).found_on in SEARCHES]
            raise DuoError("this attack finds no caption", got=name, hint=f"one of {', '.join(usable)}")
    plan = AttackPlan(list(attacks), prompts=count, file=_training_prompts(session, count), budgets=budgets or {})
    attack(session, [system], plan)
    captions: list[Caption] = []
    for one in attack_plans(session, [system], plan):
        group = one.group._replace(system="original", search=None) if one.attack.is_shared else one.group
        for file in sorted(group.folder(session.run).glob("found-*.json")):
            captions += _captions(one.attack.name, FindingsFile(file).read().findings)
    provenance = {
        "run": session.run.folder.name, "system": system.as_json(), "attacks": list(attacks), "preset": "quick",
        "budgets": {name: dict(fields) for name, fields in (budgets or {}).items()},
        "prompts": count, "seed": session.settings.seed, "base": session.model.fingerprint(),
    }  # fmt: skip
    write_bank(path, captions, provenance)
    say(f"bank: {len(captions)} captions of {', '.join(attacks)} → {path}")
    return path


def _training_prompts(session: Session, count: int) -> Path:
    """A file of some of the pairs' unsafe prompts, distinct; the same for the same run."""
    prompts = sorted({pair.unsafe_prompt for pair in session.pairs if pair.unsafe_prompt})
    if not prompts:
        raise DuoError("a bank needs the pairs' prompts", got="pairs without any", hint="give them in a manifest")
    random.Random(f"{session.settings.seed}/bank").shuffle(prompts)
    path = session.run.folder / "cache" / f"{FOUND}.txt"
    write_text(path, "".join(f"{prompt}\n" for prompt in prompts[:count]))
    return path


def _captions(name: str, found: Findings) -> list[Caption]:
    """What was found, as captions. A prompt that was left as it was is none."""
    captions = []
    for finding in found.findings:
        if finding.is_plain and name != "sneakyprompt":
            continue
        captions.append(
            Caption(
                name,
                finding.text,
                ids=torch.tensor(finding.ids) if finding.ids is not None else None,
                vector=found.tensors[finding.vector] if finding.vector is not None else None,
                behind=conditioning_of(found.tensors, finding.conditioning) if finding.conditioning else None,
            )
        )
    return captions
