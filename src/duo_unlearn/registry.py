"""Registries of names: what a name stands for is imported when it is used, so that a list of names costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Generic, TypeVar

from .errors import DuoError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one kind, e.g. attacks. An entry is "room.module:attribute", a path inside this package."""

    def __init__(self, kind: str, entries: Mapping[str, str]) -> None:
        self.kind, self.entries = kind, dict(entries)

    def names(self) -> list[str]:
        """Every name, in the order of the registry."""
        return list(self.entries)

    def get(self, name: str) -> T:
        """The thing that a name stands for. An unknown name is a DuoError that lists the known ones."""
        self.check(name)
        module, _, attribute = self.entries[name].partition(":")
        found: T = getattr(importlib.import_module(f"duo_unlearn.{module}"), attribute)
        return found

    def check(self, name: str) -> None:
        """Fail for a name that is not in the registry, without importing anything."""
        if name not in self.entries:
            raise DuoError(f"unknown {self.kind}", got=name, hint=f"one of: {', '.join(self.entries)}")
