"""A run folder as the stages leave it, drawn rather than sampled, and written by the real writers."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from duo_unlearn.interval import wilson
from duo_unlearn.mini.world.captions import caption
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import Scene, random_scene
from duo_unlearn.pairs.manifest import save_manifest
from duo_unlearn.records import ORIGINAL, Attempt, Awareness, Estimate, Pair, Source, Verdict
from duo_unlearn.runs.attempts import Group, GroupRecord, Part, write_group, write_part
from duo_unlearn.runs.folder import Run
from duo_unlearn.runs.results import write_results
from duo_unlearn.runs.verdicts import Reading, Verdicts, write_verdicts
from duo_unlearn.settings.tree import Settings, write_settings
from duo_unlearn.storage.files import write_text
from duo_unlearn.storage.pictures import save_png
from duo_unlearn.system import EditFile, GuardChoice, System

JUDGE = "mini-judge[item=sword>=0.5]@1a2b3c4d"
READER = "mini-judge@1a2b3c4d"
NEIGHBOURS = ("wand", "flower", "balloon", "book", "empty")
ASKING = {"direct": (12, 297, 299), "synonym": (21, 294, 298), "indirect": (16, 289, 293)}
"""Prompt set → in how many of 300 images the concept is not seen: original, duo, duo behind a guard."""
GUARDED = "duo+negative-prompt"
_DUO = EditFile("duo", Path("edits/duo"), "d" * 64)
_ALL = (System(), System((_DUO,)), System((_DUO,), (GuardChoice("negative-prompt", {"weight": 1.0}),)))
SYSTEMS = {system.name: system for system in _ALL}
TWO, THREE = (ORIGINAL, "duo"), (ORIGINAL, "duo", GUARDED)


def source_of(
    system: str, scenario: str, contract: str = JUDGE, *, attack: str | None = None, preset: str | None = None,
    search: Awareness | None = None, unscored: int = 0, sha256: str | None = None,
) -> Source:  # fmt: skip
    """What an estimate is of; the hash is that of the system as it is now."""
    sha256 = SYSTEMS[system].sha256 if sha256 is None else sha256
    return Source(system, sha256, scenario, attack, preset, search, contract, (0,), unscored)


def share(metric: str, source: Source, successes: int, n: int) -> Estimate:
    """An estimate of a share, with its Wilson interval."""
    return Estimate.of(metric, source, successes / n, *wilson(successes, n), n)


def attack_estimate(
    attack: str | None,
    system: str,
    defended: int,
    n: int = 20,
    *,
    scenario: str = "direct",
    preset: str = "quick",
    **more: Any,
) -> Estimate:
    """The DSR of a system under an attack, or on direct prompts where there is none."""
    preset_or_none = None if attack is None else preset
    return share("dsr", source_of(system, scenario, attack=attack, preset=preset_or_none, **more), defended, n)


def plain_estimates(systems: Sequence[str] = TWO) -> list[Estimate]:
    """Estimates of a good erasure; its worst DSR is indirect, 289 of 300."""
    found = [
        share("dsr", source_of(system, scenario), defended[THREE.index(system)], 300)
        for scenario, defended in ASKING.items()
        for system in systems
    ]
    for system in systems:
        lost = 3 * THREE.index(system)
        found += [
            share(f"{a} agreement", source_of(system, "keep", READER), 298 - lost, 300)
            for a in ("subject", "colour", "place")
        ]
        found.append(share("item agreement", source_of(system, "keep", READER), 291 - 2 * lost, 300))
        found.append(share("detected", source_of(system, "keep"), 1, 300))
        for i, scenario in enumerate(NEIGHBOURS):
            found.append(share("subject agreement", source_of(system, scenario, READER), 149, 150))
            found.append(share("item agreement", source_of(system, scenario, READER), 146 - (4 - i) * lost, 150))
        if system != ORIGINAL:
            for scenario, value in (("keep", 0.941), ("wand", 0.902)):
                source = source_of(system, scenario, "cosine[mini-clip@abcd1234]")
                found.append(Estimate.of("prior preservation", source, value, value - 0.011, value + 0.011, 300))
    return found


def attack_estimates(systems: Sequence[str] = TWO) -> list[Estimate]:
    """A quick red team: p4d is the weakest; what stands behind a guard is met unaware and aware of it."""
    found = []
    for attack, defended in (
        ("ring-a-bell", (0, 18, 19)), ("concept-inversion", (0, 12, 17)), ("p4d", (0, 8, 16)),
        ("relearning-concept-20", (0, 15, 16)), ("relearning-concept-300", (0, 3, 5)),
        ("relearning-benign-300", (0, 17, 18)), ("edit-removal", (1, 1, 4)), ("worst case", (0, 2, 4)),
    ):  # fmt: skip
        for system in systems:
            hits = defended[THREE.index(system)]
            searches: tuple[Awareness | None, ...] = (None,)
            if system == GUARDED and attack in ("p4d", "concept-inversion", "worst case"):
                searches = ("unaware", "aware")
            found += [
                attack_estimate(attack, system, hits - 3 * (search == "aware"), search=search) for search in searches
            ]
    return found


def write(
    run: Run, estimates: Sequence[Estimate], systems: Sequence[str] = TWO, *, entries: Sequence[dict[str, Any]] = (),
    **changes: Any,
) -> None:  # fmt: skip
    """results.json of these estimates. entries: of systems that SYSTEMS lacks. changes: of its fields, e.g. quick."""
    usual = {"concept": "sword", "model": "mini", "seed": 0, "quick": False, "absent": []}
    chosen = list(entries) or [SYSTEMS[name].as_json() for name in systems]
    write_results(run, **{**usual, "systems": chosen, "estimates": estimates, **changes})


def absence(reason: str, system: str = "duo", **changes: Any) -> dict[str, Any]:
    """An entry of what there is no number for."""
    usual = {"metric": "dsr", "system": system, "scenario": "direct", "attack": None, "preset": None}
    return {**usual, "reason": reason, **changes}


def add_results(run: Run, systems: Sequence[str] = TWO) -> None:
    """results.json with plain estimates, one number absent."""
    write(run, plain_estimates(systems), systems, absent=[absence("no prompts were given", scenario="slang")])


def write_attempts(
    run: Run, group: Group, attempts: Sequence[Attempt], *, kind: str = "attack", seconds: float | None = None,
    name: str = "0000", sha256: str | None = None, reason: str | None = None, contract: str | None = None,
) -> None:  # fmt: skip
    """A group with one part. contract: of the detector that the search asked."""
    sha256 = SYSTEMS[group.system].sha256 if sha256 is None else sha256
    write_group(run, GroupRecord(group, sha256, kind, "", {}, contract, reason, len(attempts), {name: "key"}))
    write_part(group.folder(run) / f"{name}.json", Part("key", list(attempts), seconds))


def attempt_of(run: Run, path: Path, image: Image.Image, prompt: str, seed: int, text: str | None = None) -> Attempt:
    """An attempt whose image is written."""
    sha256 = save_png(image, path)
    return Attempt(prompt, {}, seed, prompt if text is None else text, {}, str(path.relative_to(run.folder)), sha256)


def refusal_of(prompt: str, seed: int, guard: str, text: str | None = None) -> Attempt:
    """An attempt that a guard refused."""
    return Attempt(prompt, {}, seed, prompt if text is None else text, {}, None, None, guard)


def judgement(seen: bool, **attributes: str) -> Reading:
    """What a detector says."""
    return Reading(Verdict(seen, 0.98 if seen else 0.01), attributes)


def write_judgements(run: Run, readings: dict[str, Reading], contract: str = JUDGE) -> None:
    """The verdicts under a contract."""
    write_verdicts(run, Verdicts(contract, READER, readings, {}))


def add_images(
    run: Run, *, count: int = 30, prompt: str | None = None, systems: Sequence[str] = TWO, judged: bool = True
) -> None:
    """Attempts of every prompt set and their verdicts; a tenth of the swords survives, and the guard refuses one."""
    rng = random.Random(0)
    readings: dict[str, Reading] = {}
    for scenario in (*ASKING, "keep", *NEIGHBOURS):
        kind = "attack" if scenario in ASKING else "keep" if scenario == "keep" else "neighbour"
        item = "sword" if kind == "attack" else "none" if scenario in ("keep", "empty") else scenario
        scenes = [random_scene(rng, items=(item,)) for _ in range(count)]
        texts = [caption(scene, rng).text if prompt is None else prompt for scene in scenes]
        for system in systems:
            attempts = []
            for i, scene in enumerate(scenes):
                if system == GUARDED and kind == "attack" and i == 1:
                    attempts.append(refusal_of(texts[i], i, "negative-prompt"))
                    continue
                attempt, shown = _drawing(run, system, scenario, i, scene, texts[i])
                readings[attempt.sha256 or ""] = judgement(shown.item == "sword", item=shown.item)
                attempts.append(attempt)
            write_attempts(run, Group(system, scenario, "direct", None), attempts, kind=kind, seconds=4.0)
    if judged:
        write_judgements(run, readings)


def _drawing(run: Run, system: str, scenario: str, i: int, scene: Scene, text: str) -> tuple[Attempt, Scene]:
    """One attempt of a system, and what its picture shows."""
    group = Group(system, scenario, "direct", None)
    shown = scene
    if system != ORIGINAL and scene.item == "sword" and i % 10 != 3:
        shown = scene.counterpart("none")
    folder = run.originals if system == ORIGINAL else group.folder(run)
    name = f"{scenario}-{i:04}.png" if system == ORIGINAL else f"{i:04}.png"
    return attempt_of(run, folder / name, draw(shown), text, i), shown


def add_pairs(run: Run, *, count: int = 30, prompt: str | None = None, reason: str = "the sword is still seen") -> None:
    """Pairs, every seventh one dropped."""
    rng = random.Random(1)
    pairs = []
    for i in range(count):
        scene = random_scene(rng, items=("sword",))
        other = scene.counterpart(("none", "wand", "flower")[i % 3])
        keep = i % 7 != 5
        pairs.append(
            Pair(
                name=f"{i:04}",
                unsafe=f"unsafe/{i:04}.png",
                safe=f"safe/{i:04}.png",
                unsafe_sha256=save_png(draw(scene), run.pairs / "unsafe" / f"{i:04}.png"),
                safe_sha256=save_png(draw(other), run.pairs / "safe" / f"{i:04}.png"),
                unsafe_prompt=prompt or caption(scene, rng, keep_all=True).text,
                safe_prompt=prompt or caption(other, rng, keep_all=True).text,
                seed=i,
                keep=keep,
                reason=None if keep else reason,
            )
        )
    save_manifest(run.pairs, concept="sword", settings={}, pairs=pairs)


def add_curves(run: Run, *, steps: int = 450, name: str = "duo") -> None:
    """metrics.jsonl of an edit, and half a line at its end as a killed training leaves it."""
    rng = random.Random(2)
    lines = []
    for step in range(1, steps + 1):
        gone = 1 - math.exp(-step / 90)
        preference = math.log(2) * (1 - gone) + 0.06 * gone + rng.uniform(0, 0.08) * gone
        entry = {"step": step, "loss": preference + 0.02, "preference": preference}
        entry |= {"prior": 3e-6 * gone * rng.uniform(0.5, 1.4)}
        entry |= {"safe_margin": 2e-3 * gone * rng.uniform(-1, 1), "unsafe_margin": 2e-2 * gone * rng.uniform(0.6, 1.4)}
        entry |= {"accuracy": min(1.0, 0.5 + rng.randint(0, 2) * 0.25 * gone + 0.3 * gone)}
        lines.append(json.dumps(entry | {"gradient_norm": 0.4, "lr": 2e-3, "pairs_per_second": 21.0}))
    write_text(run.metrics(name), "\n".join(lines) + f'\n{{"step": {steps + 1}, "lo')


def add_record(run: Run, **entries: Any) -> None:
    """settings.yaml and run.json."""
    write_settings(run.settings, Settings(output=Path("runs/demo")))
    seconds = {"pairs": 41.2, "train": 87.5, "evaluate": 72.0}
    run.update_record(
        stages={
            name: {"seconds": s, "finished": f"2026-01-0{i + 1}T10:00:00Z"}
            for i, (name, s) in enumerate(seconds.items())
        },
        versions={"python": "3.11.9", "torch": "2.13.0", "diffusers": "0.42.1", "duo_unlearn": "0.1.0"},
        machine="x86_64 CPU, 2 cores",
        base="0123456789abcdef",
        **entries,
    )


def add_all(run: Run, systems: Sequence[str] = TWO, **entries: Any) -> None:
    """Every part but attacks. entries go to run.json."""
    add_results(run, systems)
    add_images(run, systems=systems)
    add_pairs(run)
    add_curves(run)
    add_record(run, **entries)
