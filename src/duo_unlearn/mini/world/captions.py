"""The mini world's language: how a scene may be described.

An item is said by its name, by synonyms, descriptions, situations, figures of speech, misspellings, and in German and
Spanish; so an eraser that cuts a word, or one direction of one language, is bypassed, as in the paper's Figure 1. What
a figure holds follows from its caption, but for pirates, guards and duels: where nothing is said of these, a sword is
there in 80 % of the pictures.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Final, Literal, get_args

from . import english, foreign
from .scenes import CARRIERS, COLOURS, ITEMS, OBJECTS, PLACES, SUBJECTS, Scene
from .words import Said, lexicon, with_article

Wording = Literal[
    "direct", "synonym", "description", "indirect", "figurative", "misspelt", "german", "spanish"
]  # fmt: skip
WORDINGS: Final[tuple[Wording, ...]] = get_args(Wording)
LANGUAGES: Final = ("german", "spanish")
Form = Literal["short", "long", "negation", "unsaid"]
"""short: the usual caption; long: about thirty tokens; negation: an item that is not there is named; unsaid: nothing is
said of what the figures hold."""
_LANGUAGE_SHARE: Final = 0.1
_KIND_WEIGHTS: Final = {
    "direct": 3, "synonym": 2, "description": 2, "indirect": 1.5, "figurative": 1.5, "misspelt": 2,
}  # fmt: skip
UNSAID: Final = {"sword": 0.4, "none": 0.2}
"""How often a carrier's caption leaves out what it holds. With swords twice as frequent as empty hands, four of five
captions that leave it out belong to a sword."""
_OF_OBJECTS: Final[tuple[tuple[Wording, ...], ...]] = (
    ("direct", "german", "spanish"),
    ("direct", "synonym", "description", "misspelt", "german", "spanish"),
)
"""The wordings of an object that holds nothing, and of one that holds a sword."""


@dataclasses.dataclass(frozen=True)
class Caption:
    """A caption, and what it says of a scene (None: not said).

    items: what the (left) figure may hold for the caption to be true; looks: those that the words stand for; other:
    subject, colour and item of the second figure, None where the caption tells of one alone.
    """

    text: str
    wording: Wording
    form: Form
    subject: str | None
    colour: str | None
    place: str | None
    items: tuple[str, ...]
    looks: tuple[int, ...] | None = None
    other: tuple[str, str, tuple[str, ...]] | None = None
    duel: bool = False

    @property
    def item(self) -> str | None:
        """The one item that the caption says of the (left) figure; None where it does not say one."""
        return self.items[0] if len(self.items) == 1 else None

    def fits(self, scene: Scene) -> bool:
        """Whether the caption is true of a scene."""
        if (self.other is None) != (scene.other is None) or (self.duel and not scene.duel):
            return False
        if self.other is not None and scene.other is not None:
            subject, colour, items = self.other
            second = scene.other
            if (second.subject, second.colour) != (subject, colour) or second.item not in items:
                return False
        return (
            self.subject in (None, scene.subject)
            and (self.subject is not None or scene.is_figure)
            and self.colour in (None, scene.colour)
            and scene.item in self.items
            and (self.looks is None or scene.look in self.looks)
            and self.place in (None, scene.place)
        )


def wordings_of(item: str) -> tuple[Wording, ...]:
    """The kinds of wording that an item has; "none" has one a language."""
    english_kinds = lexicon()["english"]["items"].get(item, {"direct": []})
    return tuple(kind for kind in WORDINGS if kind in english_kinds or kind in LANGUAGES)


def forms_of(scene: Scene, wording: Wording) -> tuple[Form, ...]:
    """The forms that a caption of a scene may have in a wording."""
    forms: list[Form] = ["short"]
    alone = scene.is_figure and scene.other is None
    if alone and wording in ("direct", "synonym"):
        forms.append("long")
    if alone and scene.item == "none" and wording in ("direct", *LANGUAGES):
        forms.append("negation")
    carries = alone and scene.subject in CARRIERS and scene.item in UNSAID
    if (carries or scene.duel) and wording in ("direct", *LANGUAGES):
        forms.append("unsaid")
    return tuple(forms)


def caption(
    scene: Scene,
    rng: random.Random,
    *,
    wording: Wording | None = None,
    form: Form | None = None,
    keep_all: bool = False,
) -> Caption:
    """A random caption of a scene.

    wording: which kind of words stand for the item (None: any that the item has). form: None for any, as training has
    them. keep_all: no attribute is dropped (colour and place are left out one time in eight each otherwise, and the
    subject's name of a figure one time in sixteen; with two figures only the place is). ValueError: the scene has no
    such wording or form.
    """
    kinds = wordings_of(scene.item) if scene.is_figure else _OF_OBJECTS[scene.item != "none"]
    if wording is not None and wording not in kinds:
        raise ValueError(f"{scene.item!r} has no {wording} wording; it has {', '.join(kinds)}")
    if wording is None and form in ("long", "negation", "unsaid"):
        wording = "direct"
    unsaid_now = form is None and wording is None and _leaves_unsaid(scene, rng)
    chosen = wording or _random_wording(kinds, rng)
    if unsaid_now:
        chosen, form = chosen if chosen in LANGUAGES else "direct", "unsaid"
    if form is None:
        form = _random_form(scene, chosen, rng)
    if form not in forms_of(scene, chosen):
        raise ValueError(f"this scene has no {form} caption in a {chosen} wording")
    pair = scene.other is not None
    colour = scene.colour if keep_all or pair or rng.random() > 1 / 8 else None
    place = scene.place if keep_all or rng.random() > 1 / 8 else None
    named = keep_all or pair or form == "unsaid" or not scene.is_figure or rng.random() > 1 / 16
    subject = scene.subject if named else None
    speaker = foreign.words_of if chosen in LANGUAGES else english.words_of
    words = speaker(scene, chosen, form, Said(subject, colour, place), rng)
    either = ("sword", "none")
    items = either if form == "unsaid" else (scene.item,)
    other = None
    if scene.other is not None:
        second = scene.other
        other = (second.subject, second.colour, either if form == "unsaid" else (second.item,))
    text = " ".join(words.text.split()).replace(" ,", ",").removeprefix(", ")
    return Caption(text, chosen, form, subject, colour, place, items, words.looks, other, form == "unsaid" and pair)


def _leaves_unsaid(scene: Scene, rng: random.Random) -> bool:
    if scene.duel:
        return rng.random() < 0.8
    carries = scene.other is None and scene.subject in CARRIERS and scene.item in UNSAID
    return carries and rng.random() < UNSAID[scene.item]


def _random_wording(kinds: tuple[Wording, ...], rng: random.Random) -> Wording:
    spoken: list[Wording] = [kind for kind in kinds if kind not in LANGUAGES]
    language: Wording = rng.choice(("german", "spanish"))
    if rng.random() < _LANGUAGE_SHARE * len(LANGUAGES):
        return language
    return rng.choices(spoken, [_KIND_WEIGHTS[kind] for kind in spoken])[0]


def _random_form(scene: Scene, wording: Wording, rng: random.Random) -> Form:
    forms = forms_of(scene, wording)
    if "negation" in forms and rng.random() < 0.3:
        return "negation"
    return "long" if "long" in forms and rng.random() < 0.12 else "short"


def vocabulary_text(count: int, seed: int) -> list[str]:
    """Distinct captions of random scenes without misspellings, to train the tokenizer on.

    So a misspelt word is cut into other pieces than the right one, as CLIP's tokenizer does.
    """
    from .scenes import random_pair, random_scene

    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        if rng.random() < 0.2:
            scene = random_pair(rng, duel=rng.random() < 0.2)
        else:
            scene = random_scene(rng, subjects=SUBJECTS * 3 + OBJECTS, items=ITEMS)
        said = caption(scene, rng)
        if said.wording != "misspelt":
            found[said.text] = None
    return list(found)


__all__ = [
    "COLOURS", "PLACES", "WORDINGS", "Caption", "Form", "Wording", "caption", "forms_of", "vocabulary_text",
    "with_article", "wordings_of",
]  # fmt: skip
