"""Peak memory of an evaluation with its report, by how many images they are of, on the mini model.

A run's edit is made once, by UCE. For each count a copy of the run is evaluated and reported by a process of its own:
so many prompts that ask for the concept and so many to keep, sampled on the original and on the edited model in few
steps, judged by both judges, measured by FID, KID, CMMD, and put on the page. The system tells the process's peak. What
an image more takes is the difference of two peaks over that of their images. `duo report` alone is told beside it.

python benchmarks/memory.py                     # 300 and 3,000 prompts of each set
python benchmarks/memory.py --counts 30,300     # a quick look
python benchmarks/memory.py --json              # and one line of figures, last
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final, NamedTuple

import yaml
from ratios import Ratio, report

from duo_unlearn.concepts.store import concept_path
from duo_unlearn.session import machine

STEPS: Final = 2
"""Sampling steps of an image. Memory does not depend on how many."""
GOAL: Final = "≤ 1.05"
GIVEN_BACK: Final = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
"""glibc gives blocks above 1 MB back when they are freed, so that a peak is of what is in use.

`duo` keeps them, which is faster, and its peak hangs on the order of sizes by some 60 MB, whatever the count.
"""
START: Final = """
import sys
import duo_unlearn as duo
folder, count = sys.argv[1:]
"""
MAKE: Final = """
given = {"concept": count, "eraser": "uce", "pairs.scale": 0.05, "pairs.steps": 10, "evaluate.batch": 64}
run = duo.open_run(folder, settings={**given, "pairs.held_out": 0}, quiet=True)
duo.make_pairs(run)
duo.train(run)
"""
EVALUATE: Final = f"""
given = {{"prompts": int(count), "keep_prompts": int(count), "inversion_prompts": 0, "steps": {STEPS}}}
settings = {{f"evaluate.{{name}}": value for name, value in given.items()}}
duo.evaluate(duo.open_run(folder, settings=settings, quiet=True))
duo.report(folder)
"""
REPORT: Final = "duo.report(folder)"


class Peak(NamedTuple):
    """The peaks of one count, in MB. images: how many the run has. whole: of evaluation and report in one process."""

    count: int
    images: int
    whole: float
    report: float


def peak_of(script: str, folder: Path, argument: str | int) -> float:
    """Run a script in a process of its own; gives the most memory that it held at once, in MB."""
    command = [sys.executable, "-c", START + script, str(folder), str(argument)]
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(command, stdout=said, stderr=said, env={**os.environ, **GIVEN_BACK})
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)  # it was waited for here, and not by subprocess
        if child.returncode:
            said.seek(0)
            raise SystemExit(f"a process failed:\n{said.read().decode(errors='replace')[-2000:]}")
    # Linux counts in KiB, macOS in bytes.
    return float(usage.ru_maxrss) * (1 if sys.platform == "darwin" else 1024) / 1e6


def write_concept(folder: Path) -> Path:
    """The sword with one prompt set that asks for it, and without neighbours."""
    content = yaml.safe_load(concept_path("sword").read_text())
    content["attacks"] = {"direct": content["attacks"]["direct"]}
    content["neighbours"] = {}
    path = folder / "sword.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def measured(made: Path, folder: Path, count: int) -> Peak:
    """Evaluate and report a copy of a run at one count."""
    shutil.copytree(made, folder)
    whole = peak_of(EVALUATE, folder, count)
    images = sum(1 for place in ("attempts", "originals") for _ in (folder / place).rglob("*.png"))
    return Peak(count, images, whole, peak_of(REPORT, folder, count))


def growth(first: Peak, last: Peak) -> list[Ratio]:
    """The peaks of more images ÷ those of fewer, each measured once."""
    more = 1000 * (last.whole - first.whole) / (last.images - first.images)
    counts = f"{last.count} ÷ {first.count} prompts a set"
    whole, alone = last.whole / first.whole, last.report / first.report
    return [
        Ratio(f"peak memory, {counts} ({more:.2f} kB an image more)", whole, whole, whole, GOAL),
        Ratio(f"the same of `duo report` alone, {counts}", alone, alone, alone),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", default="300,3000", help="prompts of a set, e.g. 30,300")
    parser.add_argument("--json", action="store_true", help="one line of figures, last")
    arguments = parser.parse_args()
    counts = sorted({int(count) for count in arguments.counts.split(",")})
    print(f"{machine()}; mini model, two prompt sets, two systems, {STEPS} sampling steps", flush=True)
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "made"
        peak_of(MAKE, made, str(write_concept(Path(place))))
        peaks = []
        for count in counts:
            peaks.append(peak := measured(made, Path(place) / str(count), count))
            print(
                f"{peak.count:>6} prompts a set, {peak.images:>6} images: evaluation and report {peak.whole:.0f} MB, "
                f"report alone {peak.report:.0f} MB",
                flush=True,
            )
    rows = [row for first, last in itertools.pairwise(peaks) for row in growth(first, last)]
    told = "; ".join(f"{one.count} prompts a set {one.whole:.0f} MB, report alone {one.report:.0f} MB" for one in peaks)
    report(rows, {"steps": STEPS, "model": "mini", "peaks": told}, as_json=arguments.json)


if __name__ == "__main__":
    main()
