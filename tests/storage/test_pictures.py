from __future__ import annotations

import os
import random
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from duo_unlearn.errors import DuoError
from duo_unlearn.storage.files import sha256_of
from duo_unlearn.storage.pictures import image_fault, open_image, read_image, save_png, sheet


def noise_image(mode: str = "RGB", size: tuple[int, int] = (48, 32)) -> Image.Image:
    return Image.effect_noise(size, 80).convert(mode)


def refused(path: Path) -> str:
    with pytest.raises(DuoError) as caught:
        open_image(path)
    assert str(path) in caught.value.problem
    assert caught.value.got
    assert caught.value.hint
    assert len(str(caught.value).splitlines()) == 3
    return str(caught.value)


@pytest.mark.parametrize(("name", "format_"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.webp", "WEBP")])
def test_formats_are_read(tmp_path: Path, name: str, format_: str) -> None:
    Image.new("RGB", (20, 10), (200, 30, 60)).save(tmp_path / name, format_)
    image = open_image(tmp_path / name)
    assert (image.mode, image.size) == ("RGB", (20, 10))
    pixel = image.getpixel((5, 5))
    assert isinstance(pixel, tuple)
    assert all(abs(a - b) <= 6 for a, b in zip(pixel, (200, 30, 60), strict=True))


def test_transparency_is_flattened_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.save(tmp_path / "a.png")
    opened = open_image(tmp_path / "a.png")
    assert opened.getpixel((0, 0)) == (255, 255, 255)
    assert opened.getpixel((1, 0)) == (0, 0, 0)


def test_grey_and_palette_are_converted(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 77).save(tmp_path / "grey.png")
    assert open_image(tmp_path / "grey.png").getpixel((0, 0)) == (77, 77, 77)
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    palette.save(tmp_path / "palette.png")
    assert open_image(tmp_path / "palette.png").getpixel((0, 0)) == (10, 20, 30)
    palette.save(tmp_path / "clear.png", transparency=1)
    assert open_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello there, no image")
    assert "not an image" in refused(tmp_path / "a.png")
    (tmp_path / "empty.png").write_bytes(b"")
    assert "empty file" in refused(tmp_path / "empty.png")
    (tmp_path / "folder.png").mkdir()
    refused(tmp_path / "folder.png")
    refused(tmp_path / "absent.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"a.{suffix}"
    noise_image(size=(160, 160)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path)


def test_a_damaged_png_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise_image(size=(160, 160)).save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))
    assert "broken" in refused(path)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds almost no data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8001, 11000, 60000])
def test_huge_images_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    assert "64 megapixels" in refused(tmp_path / "a.png")


def test_exactly_64_megapixels_pass_the_size_check(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_header(8000, 8000))
    assert "truncated or broken" in refused(tmp_path / "a.png")


def test_other_colour_modes_are_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8)).save(tmp_path / "a.jpg")
    assert "CMYK" in refused(tmp_path / "a.jpg")
    assert "sRGB" in refused(tmp_path / "a.jpg")
    Image.new("I;16", (8, 8)).save(tmp_path / "deep.png")
    assert "I;16" in refused(tmp_path / "deep.png")
    Image.new("LA", (8, 8)).save(tmp_path / "la.png")
    assert "LA" in refused(tmp_path / "la.png")


@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_animations_are_refused(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    message = refused(tmp_path / name)
    assert "animated" in message
    assert "3 frames" in message


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_exif_rotation_is_refused(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise_image().save(tmp_path / name, exif=exif)
    message = refused(tmp_path / name)
    assert "orientation 6" in message
    assert "apply the rotation" in message
    exif[0x0112] = 1
    noise_image().save(tmp_path / name, exif=exif)
    assert open_image(tmp_path / name).size == (48, 32)


def test_save_png_is_lossless_and_gives_the_hash(tmp_path: Path) -> None:
    image = noise_image()
    digest = save_png(image, tmp_path / "sub" / "a.png")
    assert digest == sha256_of(tmp_path / "sub" / "a.png")
    assert open_image(tmp_path / "sub" / "a.png").tobytes() == image.tobytes()


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    refused(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png") is None


@pytest.mark.parametrize("name", ["n" * 300, "nu\0l.png"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    for given in (name, name + ".png"):
        with pytest.raises(DuoError, match="cannot read the image"):
            open_image(tmp_path / given)
        assert read_image(tmp_path / given) is None


def test_our_own_image_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    image = noise_image()
    save_png(image, tmp_path / "a.png")
    errors: list[str] = []
    back = read_image(tmp_path / "a.png", errors)
    assert back is not None
    assert back.tobytes() == image.tobytes()
    assert errors == []


def test_our_own_image_is_none_where_it_is_missing_or_broken_and_the_reason_is_told(tmp_path: Path) -> None:
    errors: list[str] = []
    assert read_image(tmp_path / "absent.png", errors) is None
    assert errors == ["absent.png: No such file or directory"]
    save_png(noise_image(size=(80, 80)), tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    rng = random.Random(0)
    broken = [whole[: rng.randrange(len(whole))] for _ in range(40)]
    for _ in range(200):
        flipped = bytearray(whole)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        broken.append(bytes(flipped))
    for content in broken:
        (tmp_path / "a.png").write_bytes(content)
        errors.clear()
        assert (read_image(tmp_path / "a.png", errors) is None) == bool(errors)
    (tmp_path / "a.png").write_bytes(whole[:100])
    assert read_image(tmp_path / "a.png") is None


def test_an_image_of_one_colour_is_no_picture() -> None:
    for mode, colour in (("RGB", (0, 0, 0)), ("RGB", (9, 200, 31)), ("L", 128), ("RGBA", (1, 2, 3, 255))):
        assert image_fault(Image.new(mode, (16, 16), colour)) == "flat: one colour"
    almost = Image.new("RGB", (16, 16), (10, 20, 30))
    almost.putpixel((3, 3), (10, 20, 31))
    assert image_fault(almost) is None
    assert image_fault(noise_image()) is None


def test_a_fault_that_the_sampler_found_is_told() -> None:
    image = noise_image()
    image.info["fault"] = "latents that are not finite"
    assert image_fault(image) == "latents that are not finite"
    assert image_fault(image.convert("RGB")) == "latents that are not finite"


def test_a_sheet_has_a_cell_of_the_largest_image_for_each() -> None:
    red, blue = Image.new("RGB", (4, 6), "red"), Image.new("RGB", (8, 3), "blue")
    page = sheet([[red, blue], [blue]])
    assert page.size == (16, 12)
    assert page.getpixel((3, 5)) == (255, 0, 0)
    assert page.getpixel((8, 2)) == (0, 0, 255)
    assert page.getpixel((0, 6)) == (0, 0, 255)
    assert page.getpixel((4, 0)) == page.getpixel((15, 11)) == (0, 0, 0)


def test_a_sheet_with_gaps_on_its_background() -> None:
    page = sheet([[Image.new("RGB", (4, 4), "red")] * 2], gap=2, background="white")
    assert page.size == (2 + 2 * 6, 2 + 6)
    assert [page.getpixel((x, 3)) for x in (1, 2, 5, 6, 8, 12)] == [
        (255, 255, 255), (255, 0, 0), (255, 0, 0), (255, 255, 255), (255, 0, 0), (255, 255, 255),
    ]  # fmt: skip
