"""A run with drawn pictures that real judges judged, its export, and ways to tamper with that."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import duo_unlearn as duo
from duo_unlearn.arena.recompute import recompute
from duo_unlearn.export.card import model_card
from duo_unlearn.export.statement import (
    EVIDENCE,
    STATEMENT,
    files_of,
    predicate_of,
    read_evidence,
    write_statement,
)
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import random_scene
from duo_unlearn.runs.attempts import Group
from duo_unlearn.session import Session
from duo_unlearn.storage.files import sha256_of

from ..random_adapter import random_adapter
from ..report.make_run import attempt_of, write_attempts

SHOWING = {"original": 8, "duo": 2}
"""System → how many of its 10 pictures show the sword."""
ATTACKS = (("direct", None), ("ring-a-bell", "quick"), ("p4d", "quick"))


def measured_run(folder: Path, *, seed: int = 0, size: float = 0.05, rank: int = 4) -> Path:
    """A judged run of the original and of a random edit, under plain prompts and two attacks; gives its folder."""
    run = duo.open_run(
        folder, concept="sword", quiet=True, settings={"evaluate.steps": 2, "evaluate.guidance": 4.0, "seed": seed}
    )
    random_adapter(run.model, run.run.edit("duo"), size=size, rank=rank, seed=seed, concept="sword", model="mini")
    run.finish("train", 1.0, "done")
    rng = random.Random(seed)
    for system, swords in SHOWING.items():
        for attack, preset in ATTACKS:
            _attempts(run, Group(system, "direct", attack, preset), swords, rng)
        _attempts(run, Group(system, "keep", "direct", None), 0, rng, kind="keep")
    duo.judge(run)
    return run.run.folder


def _attempts(run: Session, group: Group, swords: int, rng: random.Random, kind: str = "attack") -> None:
    attempts = []
    for i in range(10):
        scene = random_scene(rng, items=("sword",))
        shown = scene if i < swords else scene.counterpart("none")
        attempts.append(attempt_of(run.run, group.folder(run.run) / f"{i:04}.png", draw(shown), f"prompt {i}", i))
    write_attempts(run.run, group, attempts, kind=kind, sha256=run.system(group.system).sha256)


def read(folder: Path, name: str = STATEMENT) -> Any:
    """The content of a file of JSON."""
    return json.loads((folder / name).read_text())


def write(folder: Path, content: Any, name: str = STATEMENT) -> None:
    (folder / name).write_text(json.dumps(content))


def mend(folder: Path) -> None:
    """Give the statement the hashes of the files that are there, as who tampers with them would."""
    statement = read(folder)
    statement["subject"] = [{"name": name, "digest": {"sha256": sha256_of(folder / name)}} for name in files_of(folder)]
    write(folder, statement)


def rewrite_alike(folder: Path, evidence: Any) -> None:
    """Another evidence, and the statement and the card that follow from it."""
    write(folder, evidence, EVIDENCE)
    again = read_evidence(folder)
    predicate = predicate_of(again, recompute(again))
    (folder / "README.md").write_text(model_card(predicate, {}, "out", None))
    write_statement(folder, predicate)


def weights_of(folder: Path) -> Path:
    """The first file of weights of an export; of a merged model its denoiser's."""
    found = sorted(folder.rglob("*.safetensors"))
    return next((path for path in found if path.parent.name == "unet"), found[0])


def flip_byte(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


def byte_in_weight(folder: Path, rng: random.Random) -> None:
    flip_byte(weights_of(folder), rng)


def byte_in_another_file(folder: Path, rng: random.Random) -> None:
    flip_byte(folder / rng.choice(["README.md", EVIDENCE, "provenance.json", "pictures.png"]), rng)


def another_edit(folder: Path, rng: random.Random) -> None:
    """Weights of another edit, and their hash in the statement."""
    path = weights_of(folder)
    with safe_open(path, "pt") as handle:
        metadata = handle.metadata()
    tensors = load_file(path)
    generator = torch.Generator().manual_seed(rng.randrange(1 << 30))
    name = rng.choice(sorted(name for name in tensors if "attn1" in name and tensors[name].ndim > 1))
    tensors[name] = tensors[name] + 0.05 * torch.randn(tensors[name].shape, generator=generator)
    save_file(tensors, path, metadata)
    mend(folder)


def number_in_statement(folder: Path, rng: random.Random) -> None:
    statement = read(folder)
    estimate = rng.choice(statement["predicate"]["measured"])
    field = rng.choice(["value", "low", "high", "n", "unscored"])
    estimate[field] += 1 if isinstance(estimate[field], int) else rng.choice([0.01, 0.1, -0.001])
    write(folder, statement)


def verdict_in_evidence(folder: Path, rng: random.Random) -> None:
    """A judge's word, and the evidence's hash in the statement."""
    evidence = read(folder, EVIDENCE)
    readings = rng.choice(evidence["judges"])["readings"]
    reading = readings[rng.choice(sorted(readings))]
    reading["detected"] = not reading["detected"]
    write(folder, evidence, EVIDENCE)
    mend(folder)


def attempt_of_evidence_left_out(folder: Path, rng: random.Random) -> None:
    evidence = read(folder, EVIDENCE)
    attempts = rng.choice(evidence["groups"])["attempts"]
    attempts.pop(rng.randrange(len(attempts)))
    write(folder, evidence, EVIDENCE)
    mend(folder)


def attack_left_out_of_statement(folder: Path, rng: random.Random) -> None:
    """An attack and all its numbers."""
    statement = read(folder)
    predicate, name = statement["predicate"], rng.choice(["ring-a-bell", "p4d"])
    predicate["attacks"] = [one for one in predicate["attacks"] if one["attack"] != name]
    predicate["measured"] = [one for one in predicate["measured"] if one["attack"] != name]
    write(folder, statement)


def attack_left_out_of_evidence(folder: Path, rng: random.Random) -> None:
    evidence, name = read(folder, EVIDENCE), rng.choice(["ring-a-bell", "p4d"])
    evidence["groups"] = [group for group in evidence["groups"] if group["asked"]["attack"] != name]
    write(folder, evidence, EVIDENCE)
    mend(folder)


def another_base(folder: Path, rng: random.Random) -> None:
    """Another fingerprint, in the statement alone or in the evidence too."""
    wrong = f"{rng.randrange(1 << 64):016x}"
    evidence = read(folder, EVIDENCE)
    evidence["base"]["fingerprint"] = wrong
    if both := rng.random() < 0.5:
        write(folder, evidence, EVIDENCE)
    statement = read(folder)
    statement["predicate"]["base"]["fingerprint"] = wrong
    write(folder, statement)
    if both:
        mend(folder)


def another_claim(folder: Path, rng: random.Random) -> None:
    statement = read(folder)
    predicate = statement["predicate"]
    changes: list[Callable[[], Any]] = [
        lambda: predicate["concept"].update(digest="0" * 64),
        lambda: predicate["edit"].update(sha256="1" * 64),
        lambda: predicate["edit"]["settings"].update(beta=1.0),
        lambda: predicate["export"].update(difference=0.001),
        lambda: predicate.update(judges=predicate["judges"][:1]),
        lambda: predicate.update(labels=100),
        lambda: predicate["not_measured"].pop(rng.randrange(len(predicate["not_measured"]))),
        lambda: predicate["versions"].update(torch="9.9"),
        lambda: predicate["attacks"][1].update(budget={"steps": 10**6}),
        lambda: predicate["sampling"].update(quick=not predicate["sampling"]["quick"]),
    ]
    rng.choice(changes)()
    write(folder, statement)


def number_in_card(folder: Path, rng: random.Random) -> None:
    """A row of the table, or a value of the model index, and the card's hash in the statement."""
    card = folder / "README.md"
    lines = card.read_text().split("\n")
    rows = [i for i, line in enumerate(lines) if line.startswith("| dsr") or line.strip().startswith("value: ")]
    i = rng.choice(rows)
    lines[i] = lines[i].replace("0.", "1.", 1) if "0." in lines[i] else lines[i].replace("1.", "0.", 1)
    card.write_text("\n".join(lines))
    mend(folder)


def file_moved(folder: Path, rng: random.Random) -> None:
    """Weights renamed, a file that is gone, or one that joined."""
    way, path = rng.randrange(3), weights_of(folder)
    if way == 0:
        path.rename(path.with_name("other.safetensors"))
    elif way == 1:
        (folder / rng.choice(["README.md", EVIDENCE, "provenance.json"])).unlink()
    else:
        shutil.copy(path, path.with_name("second.safetensors"))


TAMPERINGS: dict[str, Callable[[Path, random.Random], None]] = {
    function.__name__: function
    for function in (
        byte_in_weight, byte_in_another_file, another_edit, number_in_statement, verdict_in_evidence,
        attempt_of_evidence_left_out, attack_left_out_of_statement, attack_left_out_of_evidence, another_base,
        another_claim, number_in_card, file_moved,
    )
}  # fmt: skip
