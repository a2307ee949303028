"""How often each judge of the mini world errs on pictures that attacks made, against two readers' labels.

python benchmarks/judge_labels.py collect runs/a runs/b       # pictures of the runs' attacks, in a new order
python benchmarks/judge_labels.py sheets /tmp/sheets          # contact sheets to read: numbers, no verdicts
python benchmarks/judge_labels.py score                       # agreement, and each judge's errors

A reader writes a line "number,label" a picture, label: sword, none or broken, into docs/notes/judge-labels/NAME.csv.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer
from PIL import Image, ImageDraw

from duo_unlearn.concepts.store import load_concept
from duo_unlearn.detectors.registry import make_detector
from duo_unlearn.interval import wilson
from duo_unlearn.records import Verdict
from duo_unlearn.runs.attempts import attempts_of, read_groups
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import write_json
from duo_unlearn.storage.pictures import open_image, save_png, sheet

FOLDER: Final = Path(__file__).parents[1] / "docs" / "notes" / "judge-labels"
LABELS: Final = ("sword", "none", "broken")
SIDE: Final = 64
COLUMNS: Final = 20
READERS: Final = ("reader-1", "reader-2")
app = typer.Typer(add_completion=False, help=__doc__, pretty_exceptions_enable=False)


class Source(NamedTuple):
    """Where a picture is from."""

    run: str
    system: str
    attack: str
    prompt: str
    sha256: str
    path: Path


def _of_attacks(folder: Path) -> Iterator[Source]:
    run = Run(folder)
    for record in read_groups(run):
        group = record.group
        if group.attack not in ("direct", "edit-removal"):
            for a in attempts_of(run, record):
                if a.file is not None and a.sha256 is not None:
                    yield Source(folder.name, group.system, group.attack, a.prompt, a.sha256, folder / a.file)


@app.command()
def collect(runs: list[Path], count: Annotated[int, typer.Option(help="Pictures in all.")] = 320) -> None:
    """Take pictures from every attack of the runs in turn, and keep them as one lossless image and a list."""
    rng, by_attack = random.Random(0), dict[str, list[Source]]()
    for source in sorted({s.sha256: s for run in runs for s in _of_attacks(run)}.values()):
        by_attack.setdefault(source.attack, []).append(source)
    for sources in by_attack.values():
        rng.shuffle(sources)
    chosen: list[Source] = []
    while len(chosen) < count and any(by_attack.values()):
        chosen += [sources.pop() for sources in by_attack.values() if sources]
    chosen = chosen[:count]
    rng.shuffle(chosen)
    images = [open_image(source.path) for source in chosen]
    FOLDER.mkdir(parents=True, exist_ok=True)
    save_png(sheet(_in_rows(images, COLUMNS)), FOLDER / "pictures.png")
    with (FOLDER / "pictures.csv").open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["number", *Source._fields[:-1]])
        rows.writerows([number, *source[:-1]] for number, source in enumerate(chosen))
    typer.echo(f"{len(chosen)} pictures of {len(by_attack)} attacks: {FOLDER}")


@app.command()
def sheets(target: Path, per_sheet: int = 40) -> None:
    """Write contact sheets of the pictures, four times their size, each under its number."""
    cells = [_numbered(number, picture) for number, picture in enumerate(_pictures())]
    target.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(_in_rows(cells, per_sheet)):
        save_png(sheet(_in_rows(part, 8), gap=8, background="white"), target / f"sheet-{number:02d}.png")


@app.command()
def score(concept: str = "sword") -> None:
    """Print how far the two readings agree, and how often each judge differs from what both say; write errors.json."""
    readings, pictures, sources = [_labels(name) for name in READERS], _pictures(), _sources()
    agreed = {n: label for n, label in readings[0].items() if readings[1].get(n) == label}
    chance = sum(_share(readings[0], label) * _share(readings[1], label) for label in LABELS)
    same = len(agreed) / len(pictures)
    found: dict[str, object] = {
        "pictures": len(pictures),
        "agreed": len(agreed),
        "kappa": round((same - chance) / (1 - chance), 3),
        "labels": {label: sum(value == label for value in agreed.values()) for label in LABELS},
    }
    chosen = load_concept(concept)
    for detector in (chosen.detector, *chosen.judges):
        judge = make_detector(detector.name, tuple(detector.labels), "mini")
        said = [_word(verdict) for verdict in judge.detect(pictures)]
        found[str(judge.contract)] = {
            "wrong of what both agree on": _rate([said[n] != label for n, label in agreed.items()]),
            "sword or not, of the whole ones": _rate(
                [(said[n] == "sword") != (label == "sword") for n, label in agreed.items() if label != "broken"]
            ),
            "swords said where there is none": _rate(
                [said[n] == "sword" for n, label in agreed.items() if label != "sword"]
            ),
            "swords missed": _rate([said[n] != "sword" for n, label in agreed.items() if label == "sword"]),
            **{
                f"of {name}": _rate([said[n] != label for n, label in reading.items()])
                for name, reading in zip(READERS, readings, strict=True)
            },
            **{
                f"wrong of {attack}": _rate([said[n] != agreed[n] for n in agreed if sources[n] == attack])
                for attack in sorted(set(sources))
            },
        }
    write_json(FOLDER / "errors.json", found)
    typer.echo(json.dumps(found, indent=1))


def _in_rows(images: list[Image.Image], length: int) -> list[list[Image.Image]]:
    return [images[start : start + length] for start in range(0, len(images), length)]


def _numbered(number: int, picture: Image.Image) -> Image.Image:
    side = 4 * SIDE
    cell = Image.new("RGB", (side, side + 22), "white")
    ImageDraw.Draw(cell).text((4, 3), str(number), fill="black", font_size=16)
    cell.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (0, 22))
    return cell


def _sources() -> list[str]:
    with (FOLDER / "pictures.csv").open(newline="") as file:
        return [row["attack"] for row in csv.DictReader(file)]


def _pictures() -> list[Image.Image]:
    strip = Image.open(FOLDER / "pictures.png").convert("RGB")
    corners = [(number % COLUMNS * SIDE, number // COLUMNS * SIDE) for number in range(len(_sources()))]
    return [strip.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]


def _labels(name: str) -> dict[int, str]:
    with (FOLDER / f"{name}.csv").open(newline="") as file:
        found = {int(number): label.strip() for number, label in csv.reader(file) if number.isdecimal()}
    missing = set(range(len(_sources()))) ^ set(found)
    if missing or not set(found.values()) <= set(LABELS):
        raise typer.BadParameter(f"{name}.csv needs one of {', '.join(LABELS)} for each picture; see {sorted(missing)}")
    return found


def _share(labels: Mapping[int, str], label: str) -> float:
    return sum(value == label for value in labels.values()) / len(labels)


def _word(verdict: Verdict) -> str:
    return "broken" if verdict.broken else "sword" if verdict.detected else "none"


def _rate(wrong: list[bool]) -> dict[str, float]:
    low, high = wilson(sum(wrong), len(wrong)) if wrong else (0.0, 1.0)
    return {"wrong": sum(wrong), "n": len(wrong), "low": round(low, 4), "high": round(high, 4)}


if __name__ == "__main__":
    app()
