"""Pictures by their SHA-256 from the run's records, and small ones that are made once. No path comes from a request."""

from __future__ import annotations

import contextlib
import hashlib
import io
import threading
from pathlib import Path
from typing import Final, NamedTuple

from PIL import Image

from ..errors import DuoError
from ..storage.files import read_bytes, write_bytes
from ..storage.pictures import FORMATS, MAX_PIXELS, UNREADABLE
from .pages import Missing
from .records import Records

SIDE: Final = 256
"""The longer side of a small picture, pixels. One that is no larger is sent as it is."""
MOST_BYTES: Final = 256 * 1024 * 1024
LOCKS: Final = 16
"""How many small pictures are made at once, at most; one picture is made by one thread."""


class Sent(NamedTuple):
    """A picture's bytes and their media type."""

    content: bytes
    kind: str


class Pictures:
    """The pictures of a run. Small ones lie in its cache, which may be deleted at any time."""

    def __init__(self, records: Records) -> None:
        self.records = records
        self._locks = [threading.Lock() for _ in range(LOCKS)]
        self._is_tiny: bool | None = None

    def whole(self, sha256: str) -> Sent:
        """The file that was recorded, byte for byte. Missing: there is none, it is broken, or it is another one."""
        path = self.records.pictures().get(sha256)
        if path is None:
            raise Missing("there is no such picture in this run", got=sha256[:64], hint="open it from its page")
        try:
            content = read_bytes(path, "picture", MOST_BYTES)
        except DuoError as error:
            raise Missing(error.problem, got=error.got, hint="the other pictures are not touched by it") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            hint = "`duo check RUN` names every file that was changed"
            raise Missing(f"{path.name} is not the picture that was recorded", got="another SHA-256", hint=hint)
        try:
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                return Sent(content, Image.MIME[str(image.format)])
        except UNREADABLE as error:
            raise _broken(path, error) from error

    def small(self, sha256: str) -> Sent:
        """The same, at most SIDE pixels long. What was made before is read from the cache."""
        place = self.records.run.folder / "cache" / "small" / f"{sha256}.webp"
        with self._locks[int(sha256[:8] or "0", 16) % LOCKS]:
            if sha256 in self.records.pictures() and place.is_file():
                return Sent(read_bytes(place), "image/webp")
            whole = self.whole(sha256)
            try:
                with Image.open(io.BytesIO(whole.content), formats=FORMATS) as image:
                    if max(image.size) <= SIDE:
                        return whole
                    if image.width * image.height > MAX_PIXELS:
                        raise ValueError("it has too many pixels")
                    image.draft("RGB", (SIDE, SIDE))
                    made = image.convert("RGB")
            except UNREADABLE as error:
                raise _broken(place, error) from error
            made.thumbnail((SIDE, SIDE))
            buffer = io.BytesIO()
            made.save(buffer, "WEBP", quality=82)
            with contextlib.suppress(DuoError):  # a folder that cannot be written: it is made again next time
                write_bytes(place, buffer.getvalue())
            return Sent(buffer.getvalue(), "image/webp")

    @property
    def are_tiny(self) -> bool:
        """Whether pictures are so small that their pixels should stay sharp, as the mini model's are."""
        if self._is_tiny is None:
            for path in list(self.records.pictures().values())[:8]:
                try:
                    with Image.open(path, formats=FORMATS) as image:
                        self._is_tiny = max(image.size) <= SIDE // 2
                        break
                except UNREADABLE:
                    continue
        return bool(self._is_tiny)


def _broken(path: Path, error: Exception) -> Missing:
    return Missing(f"{path.name} is broken", got=(str(error) or type(error).__name__)[:120], hint="it cannot be shown")
