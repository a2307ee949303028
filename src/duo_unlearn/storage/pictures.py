"""Images on disk: the only room that opens, writes and lays out pictures.

A user's image that cannot be used as it is, is refused with a reason (`open_image`). One of our own files that is
missing or broken is no image (`read_image`): whoever reads it makes it again or leaves it unscored.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image, ImageFilter, UnidentifiedImageError

from ..errors import DuoError
from .files import check_regular, write_bytes

FORMATS: Final = ("PNG", "JPEG", "WEBP")
MODES: Final = ("RGB", "RGBA", "L", "P")
MAX_PIXELS: Final = 64_000_000
UNREADABLE: Final = (
    OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises for a broken image, when it opens it or when it decodes it."""
_ORIENTATION: Final = 0x0112
_CONVERT: Final = "save it as an 8-bit sRGB PNG, for example `magick IN -auto-orient -colorspace sRGB OUT.png`"


def open_image(path: Path) -> Image.Image:
    """A user's image as RGB, fully decoded. Transparency is flattened on white; grey and palette are converted.

    DuoError for what is no PNG, JPEG or WEBP, is truncated, has more than 64 megapixels, is CMYK or of another
    colour mode, holds several frames, or carries an EXIF rotation.
    """
    check_regular(path, "image")
    try:
        with warnings.catch_warnings():
            # Our own limit is the stricter one, and is checked before anything is decoded.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise DuoError(f"{path} is not an image that can be read", got=_start_of(path), hint=_CONVERT) from error
    except Image.DecompressionBombError as error:
        raise _too_large(path, "more than 178 megapixels") from error
    except Exception as error:
        raise _broken(path, error) from error
    with image:
        _check_header(path, image)
        return _as_rgb(_decode(path, image))


def _check_header(path: Path, image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _too_large(path, f"{width}×{height}")
    if image.mode not in MODES:
        raise DuoError(f"{path} has a colour mode that cannot be used", got=image.mode, hint=_CONVERT)
    frames: int = getattr(image, "n_frames", 1)
    if frames > 1:
        raise DuoError(f"{path} is animated", got=f"{frames} frames", hint="save the frame that you want as a PNG")


def _decode(path: Path, image: Image.Image) -> Image.Image:
    try:
        image.load()
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception as error:  # Pillow's decoders raise nearly anything on a broken file.
        raise _broken(path, error) from error
    if orientation != 1:
        hint = "apply the rotation and save, for example `magick IN -auto-orient OUT.png`"
        raise DuoError(f"{path} is rotated by its EXIF data", got=f"orientation {orientation}", hint=hint)
    return image


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA" and "transparency" not in image.info:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    page = Image.new("RGBA", layer.size, "white")
    page.alpha_composite(layer)
    return page.convert("RGB")


def _start_of(path: Path) -> str:
    with path.open("rb") as handle:
        start = handle.read(12)
    return f"a file that starts with {start!r}" if start else "an empty file"


def _too_large(path: Path, got: str) -> DuoError:
    limit = MAX_PIXELS // 1_000_000
    return DuoError(
        f"{path} has more than {limit} megapixels", got=got, hint="scale it down; models see 512 to 1024 pixels"
    )


def _broken(path: Path, error: Exception) -> DuoError:
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
        return DuoError(f"cannot read the image {path}", got=error.strerror, hint="check the path and its permissions")
    hint = "copy or export the file again, as PNG"
    return DuoError(f"{path} is truncated or broken", got=str(error) or type(error).__name__, hint=hint)


def read_image(path: Path, errors: list[str] | None = None) -> Image.Image | None:
    """An image that this package wrote, as RGB, fully decoded; None where it is missing or broken.

    errors: gets one line on what is wrong with the file, "NAME: reason".
    """
    try:
        check_regular(path)
        with Image.open(path, formats=FORMATS) as image:
            return image.convert("RGB")
    except (*UNREADABLE, DuoError) as error:
        if errors is not None:
            reason = (error.got if isinstance(error, DuoError) else str(error)) or type(error).__name__
            errors.append(f"{path.name}: {reason}"[:200])
        return None


def image_fault(image: Image.Image) -> str | None:
    """Why an image is no picture, so that no detector may judge it; None where it is one.

    The sampler puts a reason into `image.info["fault"]`, e.g. that its values were not finite. An image of one colour
    is none either.
    """
    if reason := image.info.get("fault"):
        return str(reason)
    bands = image.convert("RGB").getextrema()
    return "flat: one colour" if all(band[0] == band[1] for band in bands if isinstance(band, tuple)) else None


def sheet(rows: Sequence[Sequence[Image.Image]], *, gap: int = 0, background: str = "black") -> Image.Image:
    """Images laid out in rows, each in a cell of the largest one's size, at its top left.

    gap: pixels between the cells and around all of them; rows may differ in length.
    """
    images = [image for row in rows for image in row]
    width = max((image.width for image in images), default=1) + gap
    height = max((image.height for image in images), default=1) + gap
    page = Image.new("RGB", (gap + max(map(len, rows), default=0) * width, gap + len(rows) * height), background)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            page.paste(image, (gap + x * width, gap + y * height))
    return page


def check_sheet(path: Path) -> None:
    """Fail for a file that a sheet cannot be, or must not replace, before there is one."""
    if path.is_dir() or path.suffix.lower() != ".png":
        got = f"{path}, a folder" if path.is_dir() else str(path)
        raise DuoError("the images are written as one PNG", got=got, hint="-o NAME.png")


def blurred(image: Image.Image) -> Image.Image:
    """An image in which nothing can be recognised: reduced to eight pixels a side, and smoothly enlarged."""
    small = image.convert("RGB").resize((8, 8), Image.Resampling.BOX)
    smooth = small.resize(image.size, Image.Resampling.BICUBIC)
    return smooth.filter(ImageFilter.GaussianBlur(max(image.size) / 16))


def save_png(image: Image.Image, path: Path) -> str:
    """Write an image as an RGB PNG, atomically; gives the file's SHA-256."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PNG")
    content = buffer.getvalue()
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()
