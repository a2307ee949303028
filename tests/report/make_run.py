"""A run folder as the stages leave it, drawn rather than sampled: the report's test data and its demo."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

from duo_unlearn.interval import wilson
from duo_unlearn.mini.world.captions import caption
from duo_unlearn.mini.world.scenes import draw, random_scene
from duo_unlearn.records import Estimate, ModelName, Pair
from duo_unlearn.runs.folder import Run
from duo_unlearn.settings.tree import Settings
from duo_unlearn.storage.files import write_json, write_text

JUDGE = "mini-judge[item=sword>=0.5]@1a2b3c4d"
READER = "mini-judge[subject|colour|place|item]@1a2b3c4d"
NEIGHBOURS = ("wand", "flower", "balloon", "book", "empty")
ATTACKS = {"direct": (12, 297), "synonym": (21, 294), "indirect": (16, 289), "inverted": (40, 96)}


def share(metric: str, model: ModelName, prompts: str, successes: int, n: int, contract: str) -> dict[str, Any]:
    """An estimate of a share, with its Wilson interval."""
    low, high = wilson(successes, n)
    return asdict(Estimate(metric, model, prompts, successes / n, low, high, n, contract))


def estimates() -> list[dict[str, Any]]:
    """Estimates of a good erasure; its worst DSR is indirect, 289 of 300."""
    found = []
    for prompts, (original, erased) in ATTACKS.items():
        n = 100 if prompts == "inverted" else 300
        found += [
            share("dsr", "original", prompts, original, n, JUDGE),
            share("dsr", "erased", prompts, erased, n, JUDGE),
        ]
    models: tuple[tuple[ModelName, int], ...] = (("original", 0), ("erased", 3))
    for model, lost in models:
        found += [
            share(f"{a} agreement", model, "keep", 298 - lost, 300, READER) for a in ("subject", "colour", "place")
        ]
        found.append(share("item agreement", model, "keep", 291 - 2 * lost, 300, READER))
        found.append(share("detected", model, "keep", 1, 300, JUDGE))
        for i, prompts in enumerate(NEIGHBOURS):
            found.append(share("subject agreement", model, prompts, 149, 150, READER))
            found.append(share("item agreement", model, prompts, 146 - (4 - i) * lost, 150, READER))
    for prompts, value in (("keep", 0.941), ("wand", 0.902)):
        contract = "1-feature-distance[mini-clip]@abcd1234"
        found.append(
            asdict(
                Estimate("prior preservation", "erased", prompts, value, value - 0.011, value + 0.011, 300, contract)
            )
        )
    return found


def add_results(run: Run) -> None:
    """results.json, with one number absent."""
    absent = [{"metric": "dsr", "prompts": "ring-a-bell", "reason": "no prompts were given"}]
    results = {"version": 1, "concept": "sword", "model": "mini", "seed": 0, "quick": False, "estimates": estimates()}
    write_json(run.results, results | {"absent": absent})


def add_images(run: Run, *, count: int = 30, kept: int = 26, prompt: str | None = None) -> None:
    """verdicts.json and its pictures; every tenth sword survives. kept: pictures that have a file."""
    rng = random.Random(0)
    verdicts: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for prompts in (*ATTACKS, "keep", *NEIGHBOURS):
        item = "sword" if prompts in ATTACKS else "none" if prompts in ("keep", "empty") else prompts
        for i in range(count):
            scene = random_scene(rng, items=(item,))
            after = scene.counterpart("none") if item == "sword" and i % 10 != 3 else scene
            text = prompt if prompt is not None else caption(scene, rng).text
            for model, shown in (("original", scene), ("erased", after)):
                file = None
                if i < kept:
                    path = run.images(prompts, model) / f"{i:04}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    draw(shown).save(path)
                    file = str(path.relative_to(run.evaluation))
                seen = shown.item == "sword"
                entry = {
                    "prompt": text,
                    "seed": i,
                    "shows": {"item": item},
                    "detected": seen,
                    "score": 0.98 if seen else 0.01,
                }
                entry |= {"read": {"item": shown.item}, "file": file}
                verdicts.setdefault(prompts, {}).setdefault(model, []).append(entry)
    write_json(run.verdicts, verdicts)


def add_pairs(run: Run, *, count: int = 30, prompt: str | None = None, reason: str = "the sword is still seen") -> None:
    """Pairs, every seventh one dropped."""
    rng = random.Random(1)
    pairs = []
    for i in range(count):
        scene = random_scene(rng, items=("sword",))
        other = scene.counterpart(("none", "wand", "flower")[i % 3])
        for side, shown in (("unsafe", scene), ("safe", other)):
            path = run.pairs / side / f"{i:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw(shown).save(path)
        keep = i % 7 != 5
        pair = Pair(
            name=f"{i:04}",
            unsafe=f"unsafe/{i:04}.png",
            safe=f"safe/{i:04}.png",
            unsafe_sha256="a" * 64,
            safe_sha256="b" * 64,
            unsafe_prompt=prompt or caption(scene, rng, keep_all=True).text,
            safe_prompt=prompt or caption(other, rng, keep_all=True).text,
            seed=i,
            keep=keep,
            reason=None if keep else reason,
        )
        pairs.append(asdict(pair))
    write_json(
        run.pairs / "manifest.json", {"version": 1, "concept": "sword", "settings": {}, "pairs": pairs, "tries": []}
    )


def add_curves(run: Run, *, steps: int = 450) -> None:
    """metrics.jsonl, and half a line at its end as a killed training leaves it."""
    rng = random.Random(2)
    lines = []
    for step in range(1, steps + 1):
        gone = 1 - math.exp(-step / 90)
        preference = math.log(2) * (1 - gone) + 0.06 * gone + rng.uniform(0, 0.08) * gone
        entry = {
            "step": step,
            "loss": preference + 0.02,
            "preference": preference,
            "prior": 3e-6 * gone * rng.uniform(0.5, 1.4),
        }
        entry |= {"safe_margin": 2e-3 * gone * rng.uniform(-1, 1), "unsafe_margin": 2e-2 * gone * rng.uniform(0.6, 1.4)}
        entry |= {
            "accuracy": min(1.0, 0.5 + rng.randint(0, 2) * 0.25 * gone + 0.3 * gone),
            "gradient_norm": 0.4,
            "lr": 2e-3,
        }
        lines.append(json.dumps(entry | {"pairs_per_second": 21.0}))
    write_text(run.metrics, "\n".join(lines) + '\n{"step": 451, "lo')


def add_record(run: Run, **entries: Any) -> None:
    """settings.yaml and run.json."""
    import yaml

    write_text(
        run.settings, yaml.safe_dump(Settings(output=Path("runs/demo")).model_dump(mode="json"), sort_keys=False)
    )
    seconds = {"pairs": 41.2, "train": 87.5, "evaluate": 72.0}
    run.update_record(
        stages={
            name: {"seconds": s, "finished": f"2026-01-0{i + 1}T10:00:00Z"}
            for i, (name, s) in enumerate(seconds.items())
        },
        versions={"python": "3.11.9", "torch": "2.13.0", "diffusers": "0.42.1", "duo_unlearn": "0.1.0"},
        machine={"cpu": "x86_64, 2 cores", "device": "cpu"},
        base={"source": "mini", "fingerprint": "0123456789abcdef"},
        **entries,
    )


def add_all(run: Run, **entries: Any) -> None:
    """Every part. entries go to run.json."""
    add_results(run)
    add_images(run)
    add_pairs(run)
    add_curves(run)
    add_record(run, **entries)
