"""The report of whole, partial, empty and hostile run folders."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from duo_unlearn.errors import DuoError
from duo_unlearn.mini.world.scenes import Scene, draw
from duo_unlearn.records import Estimate
from duo_unlearn.report.page import write_report
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import read_json, write_json, write_text

from .make_run import add_all, add_curves, add_images, add_pairs, add_record, add_results

VOID = {"meta", "link", "img", "input", "br", "hr"}
HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)> $\\frac{ {{ 7*7 }}'


class Page(HTMLParser):
    """A page's elements, with a check that they are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def classed(self, name: str) -> list[dict[str, str | None]]:
        return [a for _, a in self.elements if name in (a.get("class") or "").split()]


def page_of(run: Run) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def assert_inert(page: Page) -> None:
    """No script, no handler, and nothing that is fetched: only data: URIs and places on the page itself."""
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name == "src":
                assert (value or "").startswith("data:image/webp;base64,")
            if name in ("href", "xlink:href"):
                assert (value or "").startswith("#")
            if name == "style":
                assert "url(" not in (value or "").replace("url(#", "")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("full"))
    add_all(run)
    return run


@pytest.fixture(scope="module")
def page(full: Run) -> Page:
    return page_of(full)


def test_verdict_states_the_worst_score_with_its_interval_and_what_was_preserved(page: Page) -> None:
    start = "With “inverted token” (worst of 4 prompt sets) the erased model shows no sword in 96.0 % of 100 images"
    assert start in page.text
    assert "(95 % interval 90.2 to 98.4 %; original model: 40.0 %)" in page.text
    assert (
        "on keep prompts (n = 300) the images agree with what was asked in subject 98.3 % (original 99.3 %)"
        in page.text
    )
    assert "the largest fall is item under “wand prompts”, from 97.3 % to 89.3 %" in page.text


def test_estimates_stand_side_by_side_with_interval_n_and_contract(full: Run) -> None:
    text = write_report(full).read_text(encoding="utf-8")
    row = text[text.index("DSR: concept not seen") :].split("</tr>")[0]
    cells = [" ".join(re.sub(r"<[^>]*>", " ", cell).split()) for cell in row.split("<td>")[1:]]
    assert cells == ["4.0 % 2.3 to 6.9 % n = 300", "99.0 % 97.1 to 99.7 % n = 300", "C1"]
    assert "mini-judge[item=sword&gt;=0.5]@1a2b3c4d" in text
    assert "0.941</span>" in text
    assert "0.930 to 0.952" in text


def test_page_is_self_contained_semantic_and_described(page: Page) -> None:
    assert_inert(page)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    targets = [href[1:] for _, a in page.elements if (href := a.get("href") or "").startswith("#")]
    assert set(targets) <= set(ids)
    assert all(image.get("alt") for image in page.all("img"))
    assert all(cell.get("scope") for cell in page.all("th"))
    assert all(svg.get("aria-label") and svg.get("role") == "img" for svg in page.all("svg"))
    assert len(page.all("svg")) == 6
    assert len(page.all("h1")) == 1
    assert "http" not in page.text


def test_letters_of_plots_are_text(full: Run) -> None:
    assert re.search(r"<text[^>]*>Indirect wording</text>", write_report(full).read_text(encoding="utf-8"))


def test_the_same_folder_gives_the_same_bytes(full: Run) -> None:
    first = write_report(full).read_bytes()
    assert write_report(full).read_bytes() == first


def test_grids_show_the_first_24_and_frame_what_the_detector_saw(page: Page) -> None:
    direct = [i["alt"] or "" for i in page.all("img") if "sword" in (i["alt"] or "")]
    assert any(alt.startswith("original, ") and alt.endswith(", concept seen") for alt in direct)
    assert any(alt.startswith("erased, ") and alt.endswith(", concept not seen") for alt in direct)
    # Four attack sets of 24: all originals, and erased numbers 3, 13 and 23.
    assert len(page.classed("seen")) == 4 * (24 + 3)
    words = "The first 24 of 30 that were kept as files, in order. Concept seen: original 30 of 30, erased 3 of 30."
    assert words in page.text
    assert len(page.all("img")) == 10 * 24 * 2 + 24 * 2


def test_pairs_show_dropped_ones_with_their_reason(page: Page) -> None:
    assert page.text.count("Dropped: the sword is still seen") == 4
    assert "26 pairs were used for training, 4 were dropped" in page.text


def test_pictures_are_hidden_unless_the_run_says_they_are_harmless(tmp_path: Path, page: Page) -> None:
    assert len([i for i in page.all("input") if i.get("type") == "checkbox"]) == len(page.all("img")) + 1
    run = Run(tmp_path)
    add_images(run, count=1, kept=1)
    for entry, boxes in (({"sensitive": True}, 21), ({"sensitive": None}, 21), ({"sensitive": False}, 0)):
        run.update_record(**entry)
        assert len(page_of(run).all("input")) == boxes


def test_settings_and_provenance_are_shown(page: Page) -> None:
    assert "train.prior_weight" in page.text
    assert "λ of the prior term" in page.text
    assert "versions.torch 2.13.0" in page.text
    assert "train 1:28" in page.text
    assert "base.fingerprint 0123456789abcdef" in page.text


def test_untested_names_attacks_sets_and_the_single_seed(page: Page, tmp_path: Path) -> None:
    tail = page.text[page.text.index("The numbers above hold") :]
    for name in (
        "Ring-A-Bell",
        "SneakyPrompt",
        "UnlearnDiffAtk",
        "P4D",
        "Relearning",
        "Image-to-image",
        "one adapter was trained",
    ):
        assert name in tail
    assert "no prompts were given" in tail
    assert "not evaluated in this run" not in tail
    run = Run(tmp_path)
    add_results(run)
    results = read_json(run.results)
    kept = [e for e in results["estimates"] if e["prompts"] != "inverted"]
    tested = {**kept[0], "prompts": "p4d", "model": "erased", "value": 0.99}
    write_json(run.results, results | {"estimates": [*kept, tested]})
    tail = page_of(run).text.split("The numbers above hold")[1]
    assert "a white-box prompt search" not in tail
    assert "Inverted token , All metrics: not evaluated in this run" in tail


def test_empty_run_states_what_is_absent(tmp_path: Path) -> None:
    page = page_of(Run(tmp_path))
    assert_inert(page)
    assert "Whether the concept was erased is not known" in page.text
    for part in (
        "no estimates",
        "no evaluation images",
        "no pairs",
        "no training curves",
        "no settings file",
        "no record",
    ):
        assert part in page.text
    assert not re.search(r"\b0(\.0)? %", page.text)
    assert page.all("svg") == []


@pytest.mark.parametrize("add", [add_results, add_images, add_pairs, add_curves, add_record])
def test_any_single_part_alone_gives_a_page(tmp_path: Path, add: Callable[[Run], None]) -> None:
    run = Run(tmp_path)
    add(run)
    page = page_of(run)
    assert_inert(page)
    assert len(page.classed("absent")) == (4 if add is add_record else 5)


def test_hostile_text_is_shown_and_inert(tmp_path: Path) -> None:
    run = Run(tmp_path)
    add_images(run, count=2, kept=2, prompt=HOSTILE)
    add_pairs(run, count=7, prompt=HOSTILE, reason=HOSTILE)
    one = asdict(Estimate("dsr", "erased", HOSTILE, 0.5, 0.2, 0.8, 8, HOSTILE))
    agreement = one | {"metric": f"{HOSTILE} agreement", "prompts": "keep"}
    absent = [{"metric": HOSTILE, "prompts": HOSTILE, "reason": HOSTILE}]
    write_json(
        run.results, {"concept": HOSTILE, "model": HOSTILE, "seed": 0, "estimates": [one, agreement], "absent": absent}
    )
    write_text(run.settings, f"concept: {HOSTILE!r}\n")
    run.update_record(versions={HOSTILE: HOSTILE}, stages={HOSTILE: {"seconds": 1, "finished": HOSTILE}})
    page = page_of(run)
    assert_inert(page)
    assert page.all("script") == []
    assert page.text.count("<script>alert(1)</script>") > 10
    assert "{{ 7*7 }}" in page.text
    assert len(page.all("svg")) == 2


def test_pictures_that_cannot_be_shown_are_marked(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    add_images(run, count=3, kept=3)
    draw(Scene("king", "red", "none", "snow")).save(tmp_path / "outside.png")
    (run.images("direct", "erased") / "0000.png").write_bytes(b"no picture")
    (run.images("direct", "erased") / "0001.png").unlink()
    verdicts = read_json(run.verdicts)
    verdicts["direct"]["erased"][2]["file"] = "../../outside.png"
    write_json(run.verdicts, verdicts)
    page = page_of(run)
    assert len(page.all("img")) == 10 * 3 * 2 - 3
    assert page.text.count("file missing or unreadable") == 3


def test_large_pictures_are_made_small(tmp_path: Path) -> None:
    run = Run(tmp_path)
    path = run.images("direct", "original") / "0000.png"
    path.parent.mkdir(parents=True)
    Image.new("RGBA", (900, 450), "red").save(path)
    page = page_of(run)
    (image,) = page.all("img")
    content = base64.b64decode((image["src"] or "").split(",")[1])
    assert Image.open(io.BytesIO(content)).size == (224, 112)
    assert "prompt not recorded" in page.text
    assert "No verdicts are recorded." in page.text


def test_values_that_only_round_to_all_or_nothing_do_not_say_so(tmp_path: Path) -> None:
    run = Run(tmp_path)
    one = asdict(Estimate("dsr", "erased", "direct", 0.9999, 0.99, 1.0, 9999, "c"))
    write_json(run.results, {"estimates": [one, one | {"model": "original", "value": 0.0001}]})
    text = page_of(run).text
    assert "in > 99.9 % of 9999 images" in text
    assert "original model: < 0.1 %" in text


def test_contracts_never_share_a_row(tmp_path: Path) -> None:
    run = Run(tmp_path)
    one = asdict(Estimate("dsr", "erased", "direct", 0.9, 0.8, 0.95, 50, "a@1"))
    write_json(run.results, {"estimates": [one, one | {"model": "original", "contract": "b@2"}]})
    assert page_of(run).text.count("not measured") >= 2


def test_a_broken_file_is_a_clear_error(tmp_path: Path) -> None:
    run = Run(tmp_path)
    write_text(run.results, '{"estimates": [')
    with pytest.raises(DuoError, match="not valid JSON"):
        write_report(run)
    write_json(run.results, {"estimates": [{"metric": "dsr"}]})
    with pytest.raises(DuoError, match="does not make one Estimate"):
        write_report(run)
    assert not run.report.exists()
