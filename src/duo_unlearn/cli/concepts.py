"""`duo concepts`: what can be erased."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

concepts = typer.Typer(no_args_is_help=True, help="Concept files: what can be erased.")

AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
Name = Annotated[str, typer.Argument(help="A shipped concept, or a concept file.")]


@concepts.command("list")
def list_concepts(as_json: AsJson = False) -> None:
    """The shipped concepts.

    duo concepts list
    """
    from ..concepts.store import load_concept, shipped_concepts

    rows = [{"name": name, "summary": load_concept(name).summary} for name in shipped_concepts()]
    print(json.dumps(rows, indent=1) if as_json else "\n".join(f"{row['name']:<12} {row['summary']}" for row in rows))


@concepts.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """A concept's file, as it stands: a template for your own; or several joined, as one training has them.

    duo concepts show sword

    duo concepts show sword+balloon
    """
    import yaml

    from ..concepts.store import concept_path, load_concept

    concept = load_concept(name)
    if as_json:
        print(concept.model_dump_json(indent=1))
    elif concept.joins:
        content = concept.model_dump(mode="json", exclude_defaults=True)
        print(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), end="")
    else:
        print(concept_path(name).read_text(encoding="utf-8"), end="")


@concepts.command()
def new(
    sentence: Annotated[str, typer.Argument(help="What to erase, in a few words.")],
    safe: Annotated[
        list[str] | None, typer.Option("--safe", help="What to draw in its place. Repeat: vary it.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="The model that is meant: for its family a detector and settings are chosen."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file.")] = Path("concept.yaml"),
) -> None:
    """Write a commented concept file to start from. Without --model CLIP judges, and no settings are recommended.

    duo concepts new "a person with an umbrella" --safe "a person with a bag" --safe "a person" -o umbrella.yaml

    duo concepts new "a wizard" --safe "a king" --safe "a farmer" --model mini -o wizard.yaml
    """
    from ..concepts.new import new_concept, words_of

    ground = None
    if model is not None:
        from ..settings.ground import ground_of

        ground = ground_of(model, *words_of(sentence, safe or ()))
    new_concept(output, sentence, safe or (), ground)
    print(f"{output} written: go through it, then `duo concepts check {shlex.quote(str(output))}`", file=sys.stderr)


@concepts.command()
def check(name: Name) -> None:
    """Find every fault of a concept file.

    duo concepts check examples/object.yaml
    """
    from ..concepts.store import load_concept

    concept = load_concept(name)
    print(f"{concept.name}: no fault found, {sum(kind.count for kind in concept.pairs)} pairs", file=sys.stderr)
