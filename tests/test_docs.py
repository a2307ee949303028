"""The documents say what is there: links and files exist, commands and settings are real, the command page is new."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
from benchmarks.commands import PAGE, every_command, page

import duo_unlearn
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.erasers.wraps import WRAPS
from duo_unlearn.export.registry import FORMATS
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.registry import Registry
from duo_unlearn.settings.tree import option_keys, setting_keys

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "duo_unlearn"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLE = {"repetition", "turn", "word-cut", "redness", "lcm", "peft", "erasers.turn.share"}
"""Names that docs/extend.md invents: they are what its reader adds."""
INVENTED = {"repetition", "turn", "word_cut", "redness", "lcm", "peft"}
"""The files that docs/extend.md invents."""
WIDTH = 100


def names(pages: list[Path]) -> list[str]:
    return [path.relative_to(ROOT).as_posix() for path in pages]


@pytest.fixture(params=names(PAGES))
def path(request: pytest.FixtureRequest) -> Path:
    return ROOT / str(request.param)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def code_lines(page: Path) -> list[str]:
    """The lines of a page's code that call `duo`, one command each, comments aside."""
    lines = re.findall(r"^    (?:\S+=\S+ |torchrun .* )?(duo .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [
        part.strip() for line in lines for part in re.split(r"&&|#|…|&$", line)[:2] if part.strip().startswith("duo ")
    ]


def test_the_page_of_commands_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python benchmarks/commands.py writes it again"


def test_the_reference_has_every_name_of_the_package() -> None:
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = {name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}
    assert set(duo_unlearn.__all__) <= named


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"^ +- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}


def test_blocks_of_code_begin_and_end_on_lines_of_their_own_and_python_is_python(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    fences = re.findall(r"^```(?:\w+)?$", text, re.MULTILINE)
    assert text.count("```") == len(fences), f"{path.name}: text was wrapped into a block, or a block into text"
    assert len(fences) % 2 == 0
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        code = textwrap.dedent(block)
        ast.parse(f"{{{code}}}" if re.match(r'"[\w-]+": ', code) else code)  # some are an entry of a dictionary


def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{path.name} links to {target}"


def test_files_that_the_readme_names_are_there() -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    named = [name for name in re.findall(r"`([\w./-]+)`", text) if "/" in name or name.endswith((".py", ".md"))]
    named = [name for name in named if "NAME" not in name and not name.startswith(("runs/", ".venv/"))]
    assert len(named) > 20
    for name in named:
        assert any((folder / name).exists() for folder in (ROOT, PACKAGE, PACKAGE / "erasers")), name


def test_modules_that_a_page_names_are_there(path: Path) -> None:
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = set(re.findall(r"`([\w./-]+\.py)`", text))
    for name in named:
        if "NAME" not in name and Path(name).stem not in INVENTED:
            places = [ROOT, PACKAGE, *(folder for folder in PACKAGE.iterdir() if folder.is_dir())]
            assert any((folder / name).exists() for folder in places), f"{path.name}: {name}"


def test_the_layers_are_those_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert "\n".join(f"    {layer}" for layer in layers) in (ROOT / "docs" / "architecture.md").read_text(
        encoding="utf-8"
    )


def test_prose_is_wrapped(path: Path) -> None:
    is_code = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        is_code ^= line.startswith("```")
        free = is_code or line.startswith(("|", "    ", "<!--"))
        assert free or len(line) <= WIDTH, f"{path.name}:{number} has {len(line)} characters"


def test_commands_of_the_pages_are_real(path: Path) -> None:
    known, keys = every_command(), {**setting_keys(), **option_keys()}
    registries: dict[str, Registry[Any]] = {"--attack": ATTACKS, "--guard": GUARDS}
    registries |= {"--eraser": ERASERS, "--wrap": WRAPS, "--format": FORMATS}
    for line in code_lines(path):
        words = shlex.split(line)
        command = next((name for name in (" ".join(words[1:3]), words[1]) if name in known), None)
        assert command is not None, line
        for option, value in zip(words, [*words[1:], ""], strict=True):
            if re.fullmatch(r"--?[a-z_-]+", option):
                assert option in known[command], f"{path.name}: {line}"
            if option == "--set" and "=" in value:
                assert value.partition("=")[0] in {*keys, *EXAMPLE}, f"{path.name}: {line}"
            if option in registries:
                assert value in {*registries[option].names(), *EXAMPLE}, f"{path.name}: {line}"
