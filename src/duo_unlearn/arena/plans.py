"""What is asked of which system: an attack with its budget, on the prompts of a scenario."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..attacks.budgets import budget_fault
from ..attacks.registry import ATTACKS
from ..concepts.captions import CAPTIONS, read_captions
from ..concepts.categories import by_category, slug
from ..concepts.prompt_files import prompts_digest, read_prompts
from ..concepts.prompt_sets import Counts, PromptSet, prompt_sets, showing
from ..errors import DuoError
from ..records import CONTROL, ORIGINAL, Awareness, Prompt, control_on
from ..runs.attempts import Group
from ..runs.folder import Run
from ..session import Session
from ..storage.files import seed_of
from ..system import System

if TYPE_CHECKING:
    from ..attacks.interface import Attack, Preset

DIRECT: Final = "direct"


@dataclasses.dataclass(frozen=True)
class Plan:
    """One attack on one system. preset: None where nothing attacks, "custom" where the budget is no preset's.

    replay: a run whose findings, found there on `replay_system`, are used in place of a search. keeps_wider: where more
    prompts of the scenario were asked before under the same settings, these stay.
    """

    system: System
    scenario: PromptSet
    attack: Attack
    preset: str | None
    budget: Any
    search: Awareness | None = None
    replay: Path | None = None
    replay_system: str = ""
    keeps_wider: bool = False

    @property
    def group(self) -> Group:
        """The folder that the attempts are kept in."""
        replay = self.replay.resolve().name if self.replay is not None else None
        return Group(self.system.name, self.scenario.name, self.attack.name, self.preset, self.search, replay)

    @property
    def findings_group(self) -> Group:
        """The folder that what is found is kept in: what serves every system lies with the original."""
        group = self.group._replace(replay=None)
        return group._replace(system=ORIGINAL, search=None) if self.attack.is_shared else group


class AttackPlan(NamedTuple):
    """Attacks that every system of a run, or every member of a sweep, undergoes. prompts: how many of the scenario.

    aware: whether white-box searches see the guards of a system that has some. file: prompts in place of the concept's.
    budgets: attack → fields of its budget that are not the preset's; its attempts then have the preset "custom".
    """

    names: Sequence[str]
    preset: Preset = "quick"
    prompts: int = 20
    aware: bool = False
    file: Path | None = None
    budgets: Mapping[str, Mapping[str, Any]] = {}


def evaluation_plans(session: Session, systems: Sequence[System]) -> list[Plan]:
    """Direct prompts of every scenario, and an inverted token before each concept's first ones and plain prompts."""
    counts, sets = session.settings.evaluate, _evaluated(session)
    direct = ATTACKS.get(DIRECT)
    plans = [
        Plan(system, chosen, direct, None, direct.budgets["quick"])
        for chosen in sets
        if chosen.kind != "plain"
        for system in systems
    ]
    if not counts.inversion_prompts:
        return plans
    attack = ATTACKS.get("concept-inversion")
    budget = dataclasses.replace(attack.budgets["quick"], steps=counts.inversion_steps, batch=counts.inversion_batch)
    few = [_first(chosen, counts.inversion_prompts) for chosen in sets if chosen.name in session.concept.asking]
    for chosen in [*few, *(chosen for chosen in sets if chosen.kind == "plain")]:
        for system in systems:
            search: Awareness | None = "unaware" if system.guards else None
            plans.append(Plan(system, chosen, attack, _preset_of(attack, budget), budget, search))
    return plans


def evaluated_texts(session: Session) -> frozenset[str]:
    """What an evaluation of the run asks, for a concept that has no scenes apart for it; else nothing."""
    if session.concept.split != "none":
        return frozenset()
    return frozenset(prompt.text for chosen in _evaluated(session) for prompt in chosen.prompts)


def _evaluated(session: Session) -> list[PromptSet]:
    counts = session.settings.evaluate
    sizes = Counts(counts.prompts, counts.keep_prompts, counts.neighbour_prompts, counts.inversion_prompts)
    return [*prompt_sets(session.concept, sizes, session.settings.seed), *_captions(session)]


def _captions(session: Session) -> list[PromptSet]:
    """The prompt set of the captions that a user brought, the first of the file; it keeps, as keep prompts do."""
    if (path := session.settings.evaluate.captions) is None:
        return []
    prompts = read_captions(path)[: session.settings.evaluate.caption_prompts]
    seeds = [seed_of(session.settings.seed, "evaluate", CAPTIONS, i) for i in range(len(prompts))]
    return [PromptSet(CAPTIONS, "keep", prompts, seeds)]


def attack_plans(
    session: Session, systems: Sequence[System], chosen: AttackPlan, replay: Path | None = None
) -> list[Plan]:
    """The attacks of a plan on some systems, and their controls. Direct prompts have no preset.

    replay: a run whose findings are used; on the original those that were found on the first other system.
    """
    for name in chosen.budgets:
        ATTACKS.check(name)
    other = next((system.name for system in systems if system.name != ORIGINAL), ORIGINAL)
    scenarios = attacked_scenarios(session, chosen.prompts, chosen.file)
    plans = []
    with_control = {name for name in chosen.names if ATTACKS.get(name).has_control}
    controls = _controls(session, scenarios) if with_control else []
    asked = [(n, one) for n in chosen.names for one in (*scenarios, *(controls if n in with_control else []))]
    for name, scenario in asked:
        attack = ATTACKS.get(name)
        for system in systems:
            search: Awareness | None = None
            if attack.is_white_box and system.guards:
                search = "aware" if chosen.aware else "unaware"
            budget = _budget(attack, chosen)
            same = budget == attack.budgets[chosen.preset]
            preset = None if name == DIRECT else chosen.preset if same else _preset_of(attack, budget)
            # So a red team on twenty direct prompts takes none away from an evaluation on three hundred.
            source = other if system.name == ORIGINAL else system.name
            searches = attack.found_on != "nothing"
            plans.append(
                Plan(
                    system, scenario, attack, preset, budget, search,
                    replay=replay if searches else None, replay_system=source, keeps_wider=preset is None,
                )
            )  # fmt: skip
    return plans


def wider_scenario(session: Session, scenario: PromptSet, count: int) -> PromptSet:
    """The same prompt set with `count` prompts: its own are the first of them."""
    counts = Counts(**{kind: count if kind == scenario.kind else 0 for kind in Counts._fields})
    sets = prompt_sets(session.concept, counts, session.settings.seed)
    return next((chosen for chosen in sets if chosen.name == scenario.name), scenario)


def attacked_scenarios(session: Session, count: int, file: Path | None = None) -> list[PromptSet]:
    """`count` prompts of the set that stands for the concept; or all of a file's, a set a category.

    Of several concepts as one, `count` of each.
    """
    seed = session.settings.seed
    if file is not None:
        name, groups = file_set_name(session.run, file), by_category(read_prompts(file))
        return [_file_set(name, file, category, prompts, seed) for category, prompts in groups.items()]
    sets = prompt_sets(session.concept, Counts(count, 0, 0, 0), seed)
    if not sets:
        hint = "add attacks: to its file, or --prompts"
        raise DuoError(f"the concept {session.concept.name} asks for nothing", hint=hint)
    return [one for one in sets if one.name in session.concept.asking]


def _controls(session: Session, scenarios: Sequence[PromptSet]) -> list[PromptSet]:
    """What the control of an attack is made on: as many prompts as are attacked, each of which shows an item.

    They have the seeds of an evaluation, so they share its originals. Their kind is "keep": what is told of them is how
    often their own item comes back, not a DSR. An item is whatever the concept is told by; where no prompt shows one,
    they are keep prompts.
    """
    concept, seed = session.concept, session.settings.seed
    count = sum(len(scenario.prompts) for scenario in scenarios)
    controls = []
    for attribute in concept.attributes:
        if found := showing(concept, attribute, count, seed):
            prompts, seeds = [prompt for prompt, _ in found], [own for _, own in found]
            controls.append(PromptSet(control_on(attribute), "keep", prompts, seeds))
    keep = prompt_sets(concept, Counts(0, count, 0, 0), seed) if not controls else []
    return controls or [one._replace(name=CONTROL) for one in keep]


def file_set_name(run: Run, file: Path) -> str:
    """The prompt set of a file of prompts: named as the file, and by its content too where another has that name.

    run.json says which content each name stands for.
    """
    name, content = f"file-{file.stem}", prompts_digest(file)
    known = run.read_record().get("prompt_files", {})
    return name if known.get(name, content) == content else f"{name}-{content[:8]}"


def _file_set(name: str, file: Path, category: str, prompts: list[Prompt], seed: int) -> PromptSet:
    about = f"-{slug(category)}" if category else ""
    # The same file has the same noise in every run, whatever its prompts are called there.
    seeds = [seed_of(seed, "evaluate", f"file-{file.stem}{about}", i) for i in range(len(prompts))]
    return PromptSet(f"{name}{about}", "attack", prompts, seeds)


def with_original(systems: Sequence[System]) -> list[System]:
    """The original first, then the systems, each once."""
    named = {system.name: system for system in (System(), *systems)}
    return [named.pop(ORIGINAL), *named.values()]


def _budget(attack: Attack, chosen: AttackPlan) -> Any:
    """A preset's budget with the fields that are asked for; those that it cannot have are a DuoError."""
    preset, fields = attack.budgets[chosen.preset], chosen.budgets.get(attack.name, {})
    if (fault := budget_fault(preset, fields)) is not None:
        got, hint = ", ".join(f"{k}={v!r}" for k, v in fields.items()), "duo attacks prints the fields of each budget"
        raise DuoError(f"the budget of {attack.name} {fault}", got=got, hint=hint)
    return dataclasses.replace(preset, **fields)


def _first(scenario: PromptSet, count: int) -> PromptSet:
    return scenario._replace(prompts=scenario.prompts[:count], seeds=scenario.seeds[:count])


def _preset_of(attack: Attack, budget: Any) -> str:
    return next((preset for preset, known in attack.budgets.items() if known == budget), "custom")
