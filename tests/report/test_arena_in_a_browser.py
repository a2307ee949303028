"""The arena's page in a real browser, with 20 systems: on a phone, and on a sheet of paper."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from duo_unlearn.records import ORIGINAL
from duo_unlearn.report.arena import write_arena

from ..chromium import browsing, needs_chromium
from .test_arena_page import JUDGES, standing

pytestmark = needs_chromium

ATTACKS = [f"attack-{i}" for i in range(20)]
PLACES = [*((f"wording-{i}", None, None) for i in range(8)), *(("direct", name, "quick") for name in ATTACKS)]
PHONE = {"width": 390, "height": 844}
PAPER = {"width": 1032, "height": 720}
"""CSS pixels of A4 on its side, less its margins."""
CONTRASTS = """() => {
  const canvas = document.createElement("canvas"), context = canvas.getContext("2d", {willReadFrequently: true});
  const light = (colour) => {
    context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    const parts = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map(v => v / 255);
    const [r, g, b] = parts.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const cells = [...document.querySelectorAll(".matrix td[style]")].map(getComputedStyle);
  return cells.map(({color, backgroundColor}) => {
    const [a, b] = [light(color), light(backgroundColor)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  });
}"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 systems and 28 columns; one number in seven is of pictures of which a fifth are broken."""
    systems = [standing(ORIGINAL, 0, "original", PLACES)]
    for i in range(1, 20):
        made = standing(f"system-{i}", i, "eraser", PLACES)
        broken = [
            dataclasses.replace(e, metric="broken", value=0.2, low=0.1, high=0.3) for e in made.estimates[::7]
            if e.metric == "dsr"
        ]  # fmt: skip
        systems.append(made._replace(estimates=[*made.estimates, *broken]))
    return write_arena(tmp_path_factory.mktemp("arena"), "sword", systems, JUDGES, "a machine")


def test_a_phone_scrolls_the_table_alone_and_keeps_the_names(page: Path) -> None:
    with browsing(page.as_uri(), viewport=PHONE) as (shown, faults):
        assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
        left = "() => document.querySelector('.matrix tbody th').getBoundingClientRect().left"
        before = shown.evaluate(left)
        moved = shown.evaluate(
            "() => { const s = document.querySelector('.scroll'); s.scrollLeft = 400; return s.scrollLeft; }"
        )
        assert moved == 400
        assert shown.evaluate(left) == pytest.approx(before, abs=4)
        assert faults == []


def test_a_sheet_of_paper_holds_20_systems_by_28_columns(page: Path) -> None:
    with browsing(page.as_uri(), viewport=PAPER) as (shown, _):
        shown.emulate_media(media="print")
        right = shown.evaluate("document.querySelector('.matrix').getBoundingClientRect().right")
        assert right <= PAPER["width"]


@pytest.mark.parametrize(("media", "scheme"), [("screen", "light"), ("screen", "dark"), ("print", "light")])
def test_every_number_can_be_read_on_its_colour(page: Path, media: str, scheme: str) -> None:
    with browsing(page.as_uri(), viewport=PAPER) as (shown, _):
        shown.emulate_media(media=media, color_scheme=scheme)
        assert shown.locator(".matrix td.cracked").count() > 10
        assert min(shown.evaluate(CONTRASTS)) >= 4.5  # WCAG 2.2, 1.4.3
