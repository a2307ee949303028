"""The hub, asked once whether it answers: its client would retry for half a minute before it says that it does not."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

PATIENCE: Final = 5.0
"""Seconds that the hub has to answer."""


def files_here_alone(source: str | None) -> bool:
    """Whether a model's files must be on this machine: it is a folder here, or the hub does not answer.

    source: a folder or a hub id; None: whatever the hub has. What was once fetched lies in the hub's cache here.
    """
    return (source is not None and Path(source).exists()) or not answers()


@functools.cache
def answers() -> bool:
    """Whether the hub can be asked: no, where it is switched off (HF_HUB_OFFLINE) or does not answer in time."""
    from huggingface_hub import constants, get_session, is_offline_mode

    if is_offline_mode():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # noqa: BLE001, whatever the client, what it is built on, or a proxy raises
        return False
    return True


def why_not_loaded(error: Exception, source: str) -> str:
    """What a failure to load from a folder or a hub id is told as: that the hub does not answer, or what was said."""
    if not Path(source).exists() and not answers():
        return "it is not in the hub's cache here, and the hub does not answer"
    return " ".join(str(error).split())[:150] or type(error).__name__
