"""What becomes of pictures, honest and hostile: kept, turned, stripped, or refused with a reason of their own."""

import io
import struct
import time
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin
from vesta_common.errors import InvalidArgument
from vesta_common.media import image_formats
from vesta_common.media.images import inspect, normalise
from vesta_common.media.model_input import SQUARE
from vesta_common.media.model_pictures import model_pixels

_Made = TypeVar("_Made")

ORIENTATION, EXIF_IFD, TAKEN, TAKEN_OFFSET = 0x0112, 0x8769, 0x9003, 0x9011


def a_picture(width: int = 320, height: int = 200, mode: str = "RGB", seed: int = 7) -> Image.Image:
    """A smooth picture without any symmetry, so that turning it shows."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, image_format: str = "JPEG", **options: Any) -> bytes:
    target = io.BytesIO()
    image.save(target, image_format, **options)
    return target.getvalue()


def decoded(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def passed(door: Callable[[bytes], _Made], data: bytes) -> _Made | None:
    """What a function makes of a file; None where it refuses it with a reason. Any other error fails the test."""
    try:
        return door(data)
    except InvalidArgument as refused:
        if not refused.reason.startswith("IMAGE_"):
            raise
        return None


def exif_with(orientation: int = 1, taken: str = "", offset: str = "") -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    details = exif.get_ifd(EXIF_IFD)
    if taken:
        details[TAKEN] = taken
    if offset:
        details[TAKEN_OFFSET] = offset
    return exif


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def a_png_of(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG that says it is so large and holds these compressed pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        image_formats.PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")
    )


def an_animation(image_format: str) -> bytes:
    frames = [a_picture(seed=seed, width=32, height=32) for seed in range(3)]
    return encoded(frames[0], image_format, save_all=True, append_images=frames[1:], duration=50)


def a_jpeg_of_many_scans() -> bytes:
    jpeg = encoded(a_picture(), progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * 150 + b"\xff\xd9"


def a_jpeg_that_claims(width: int, height: int, **options: bool) -> bytes:
    """A small JPEG whose header states another size."""
    jpeg = encoded(a_picture(width=64, height=64), **options)
    frame = jpeg.index(b"\xff\xc2" if options.get("progressive") else b"\xff\xc0")
    return jpeg[: frame + 5] + struct.pack(">HH", height, width) + jpeg[frame + 9 :]


SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "IMAGE_EMPTY"),
    "zeros": (lambda: b"\x00" * 4096, "IMAGE_FORMAT_UNSUPPORTED"),
    "text named .jpg": (lambda: b"this is no image", "IMAGE_FORMAT_UNSUPPORTED"),
    "SVG": (lambda: SVG, "IMAGE_FORMAT_UNSUPPORTED"),
    "HEIC": (lambda: b"\x00\x00\x00\x18ftypheic" + bytes(64), "IMAGE_FORMAT_UNSUPPORTED"),
    "PDF": (lambda: b"%PDF-1.7" + bytes(64), "IMAGE_FORMAT_UNSUPPORTED"),
    "PDF that holds a JPEG": (lambda: b"%PDF-1.7\n" + encoded(a_picture()), "IMAGE_FORMAT_UNSUPPORTED"),
    "too many bytes": (lambda: b"\xff\xd8\xff" + bytes(image_formats.IMAGE_BYTES_MAX), "IMAGE_TOO_LARGE"),
    "JPEG cut in its pixels": (lambda: encoded(a_picture())[:-200], "IMAGE_TRUNCATED"),
    "JPEG cut in its header": (lambda: encoded(a_picture())[:60], "IMAGE_TRUNCATED"),
    "JPEG of three bytes": (lambda: b"\xff\xd8\xff", "IMAGE_TRUNCATED"),
    "progressive JPEG cut": (lambda: encoded(a_picture(), progressive=True)[:-300], "IMAGE_TRUNCATED"),
    "PNG cut": (lambda: encoded(a_picture(), "PNG")[:-100], "IMAGE_TRUNCATED"),
    "PNG with too few pixels": (lambda: a_png_of(64, 64, zlib.compress(bytes(65 * 64))[:-9]), "IMAGE_TRUNCATED"),
    "WebP cut": (lambda: encoded(a_picture(), "WEBP")[:-100], "IMAGE_TRUNCATED"),
    "GIF cut": (lambda: encoded(a_picture(), "GIF")[:-200], "IMAGE_TRUNCATED"),
    "BMP cut": (lambda: encoded(a_picture(), "BMP")[:-100], "IMAGE_TRUNCATED"),
    "TIFF cut": (lambda: encoded(a_picture(), "TIFF", compression=None)[:-100], "IMAGE_TRUNCATED"),
    "tiny PNG of 2.5 gigapixels": (lambda: a_png_of(50_000, 50_000, zlib.compress(bytes(1000))), "IMAGE_TOO_LARGE"),
    "PNG of the largest size there is": (lambda: a_png_of(2**31 - 1, 2**31 - 1), "IMAGE_TOO_LARGE"),
    "100 megapixels": (lambda: encoded(Image.new("L", (10_000, 10_000)), "PNG"), "IMAGE_TOO_LARGE"),
    "100 megapixel JPEG": (lambda: encoded(Image.new("L", (10_000, 10_000)), "JPEG"), "IMAGE_TOO_LARGE"),
    "small JPEG that claims 35 megapixels": (lambda: a_jpeg_that_claims(6000, 5900), "IMAGE_TRUNCATED"),
    "small progressive JPEG that claims 35 megapixels": (
        lambda: a_jpeg_that_claims(6000, 5900, progressive=True),
        "IMAGE_TRUNCATED",
    ),
    "PNG without width": (lambda: a_png_of(0, 10), "IMAGE_CORRUPT"),
    "PNG with garbage for pixels": (lambda: a_png_of(64, 64, b"garbage" * 20), "IMAGE_CORRUPT"),
    "PNG with an unknown critical chunk": (
        lambda: a_png_of(8, 8).replace(b"IDAT", b"EVIL"),
        "IMAGE_CORRUPT",
    ),
    "animated GIF": (lambda: an_animation("GIF"), "IMAGE_ANIMATED"),
    "animated PNG": (lambda: an_animation("PNG"), "IMAGE_ANIMATED"),
    "animated WebP": (lambda: an_animation("WEBP"), "IMAGE_ANIMATED"),
    "TIFF of several pages": (lambda: an_animation("TIFF"), "IMAGE_ANIMATED"),
    "JPEG of very many scans": (a_jpeg_of_many_scans, "IMAGE_TOO_EXPENSIVE"),
    "PNG with 9 MiB of text": (
        lambda: encoded(a_picture(), "PNG")[:-12] + png_chunk(b"tEXt", bytes(9 << 20)) + png_chunk(b"IEND", b""),
        "IMAGE_METADATA_TOO_LARGE",
    ),
    "floating point pixels": (lambda: encoded(a_picture(mode="F"), "TIFF"), "IMAGE_FORMAT_UNSUPPORTED"),
}


LARGE_JPEG = encoded(a_picture(1200, 900))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_with_their_reason(name: str) -> None:
    build, reason = HOSTILE[name]
    data = build()
    for door in (normalise, model_pixels):
        with pytest.raises(InvalidArgument) as refused:
            door(data)
        assert refused.value.reason == reason, refused.value.message
        assert len(refused.value.message) < 400


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_damaged_file_does_anything_but_pass_or_be_refused(data: st.DataObject) -> None:
    image_format = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
    whole = bytearray(
        encoded(a_picture(24, 18), image_format, **({"exif": exif_with(6)} if image_format != "GIF" else {}))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        whole[place] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(1, len(whole)))]) if data.draw(st.booleans()) else bytes(whole)
    kept, pixels = passed(normalise, damaged), passed(model_pixels, damaged)
    assert (kept is None) == (pixels is None)
    if kept is not None and pixels is not None:
        assert decoded(kept.data).size == (kept.width_px, kept.height_px)
        assert (pixels.shape, pixels.dtype) == ((SQUARE.height_px, SQUARE.width_px, 3), np.uint8)


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8\xff", image_formats.PNG_SIGNATURE, b"GIF89a", b"BM", b"II*\x00"]),
)
def test_no_bytes_do_anything_but_be_refused(tail: bytes, magic: bytes) -> None:
    with pytest.raises(InvalidArgument):
        normalise(magic + tail)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_large_jpeg_that_is_kept_is_one_that_decodes_wholly(data: st.DataObject) -> None:
    whole = bytearray(LARGE_JPEG)
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(1, len(whole)))]) if data.draw(st.booleans()) else bytes(whole)
    kept = passed(normalise, damaged)
    assert kept is not None or damaged != LARGE_JPEG
    if kept is not None:  # it was read at a smaller scale, and nothing was overlooked
        assert decoded(kept.data).size == (kept.width_px, kept.height_px)


def a_webp_that_grows(side_px: int, channels: int) -> bytes:
    """Four rows of noise over and over, which lossless WebP keeps in a few thousand bytes and JPEG and PNG do not."""
    rows = np.random.default_rng(1).integers(0, 256, (4, side_px, channels), dtype=np.uint8)
    return encoded(Image.fromarray(np.tile(rows, (side_px // 4, 1, 1))), "WEBP", lossless=True, quality=0, method=0)


def test_a_picture_that_grows_is_kept_in_a_form_that_models_take() -> None:
    came = a_webp_that_grows(5600, channels=3)
    kept = normalise(came)
    assert len(came) < 100_000 < len(kept.data) <= image_formats.IMAGE_BYTES_MAX
    assert model_pixels(kept.data).shape == (SQUARE.height_px, SQUARE.width_px, 3)


def test_a_picture_that_grows_beyond_what_may_be_kept_is_refused() -> None:
    with pytest.raises(InvalidArgument) as refused:
        normalise(a_webp_that_grows(3000, channels=4))
    assert refused.value.reason == "IMAGE_TOO_LARGE"


@pytest.mark.parametrize("size", [(512, 512), (512, 384), (2048, 1536), (640, 480), (100, 1000)])
def test_the_thumbnail_of_a_jpeg_of_any_scale_is_within_its_limit(size: tuple[int, int]) -> None:
    kept = normalise(encoded(Image.new("RGB", size, "red"), "JPEG"))
    scale = 256 / max(size)
    assert decoded(kept.thumbnail_jpeg).size == (round(size[0] * scale), round(size[1] * scale))
    assert (kept.width_px, kept.height_px) == size


def test_the_thumbnail_of_a_large_jpeg_shows_the_whole_picture() -> None:
    kept = normalise(LARGE_JPEG)
    expected = np.asarray(decoded(LARGE_JPEG).resize((256, 192), Image.Resampling.BOX), np.int16)
    assert (kept.width_px, kept.height_px) == (1200, 900)
    assert np.abs(np.asarray(decoded(kept.thumbnail_jpeg), np.int16) - expected).mean() < 3


def test_pixels_of_an_upright_jpeg_are_kept_bit_for_bit_without_its_metadata() -> None:
    picture = a_picture()
    noisy = encoded(
        picture, exif=exif_with(1, "2026:05:04 03:02:01"), comment=b"home address", xmp=b"<x:xmpmeta>secret</x:xmpmeta>"
    )
    image = normalise(noisy)
    assert np.array_equal(decoded(image.data), decoded(noisy))
    assert image.mime_type == "image/jpeg"
    assert b"secret" not in image.data
    assert b"home address" not in image.data
    assert b"Exif" not in image.data


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_one_picture_has_one_hash_whatever_metadata_and_tail_it_came_with(image_format: str) -> None:
    picture = a_picture()
    bare = normalise(encoded(picture, image_format))
    told = normalise(
        encoded(picture, image_format, exif=exif_with(1, "2026:05:04 03:02:01"), dpi=(300, 300))
        + b"PK\x03\x04 an archive"
    )
    assert told.data == bare.data


def test_normalising_twice_changes_nothing() -> None:
    for image_format, options in (
        ("JPEG", {"exif": exif_with(6)}),
        ("PNG", {}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
    ):
        once = normalise(encoded(a_picture(), image_format, **options))
        assert normalise(once.data).data == once.data


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pictures_are_turned_upright(orientation: int, image_format: str) -> None:
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that undoes each orientation's turn
    upright = a_picture(320, 200)
    turned = upright.transpose(back[orientation]) if orientation > 1 else upright
    image = normalise(
        encoded(
            turned,
            image_format,
            exif=exif_with(orientation),
            **({"quality": 95} if image_format in ("JPEG", "WEBP") else {}),
        )
    )
    assert (image.width_px, image.height_px) == (320, 200)
    difference = np.abs(np.asarray(decoded(image.data).convert("RGB"), int) - np.asarray(upright, int))
    assert difference.mean() < 4


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP"]), st.integers(1, 8), st.integers(40, 700), st.integers(40, 700))
def test_models_see_a_file_as_they_see_its_kept_form(
    image_format: str, orientation: int, width: int, height: int
) -> None:
    options = {} if image_format == "BMP" else {"exif": exif_with(orientation)}
    data = encoded(a_picture(width, height), image_format, **options)
    raw, kept = model_pixels(data), model_pixels(normalise(data).data)  # whatever normalise answers, models take
    assert raw.shape == (SQUARE.height_px, SQUARE.width_px, 3)
    assert raw.dtype == np.uint8
    assert np.abs(raw.astype(int) - kept.astype(int)).mean() < 4


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [("1", "PNG"), ("L", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG"),
     ("CMYK", "TIFF"), ("I;16", "TIFF"), ("RGBA", "WEBP"), ("RGBA", "TIFF"), ("P", "GIF"), ("P", "BMP"), ("L", "TIFF"), ("1", "TIFF")],
)  # fmt: skip
def test_every_kind_of_pixel_is_taken(mode: str, image_format: str) -> None:
    gray = a_picture(mode="L")
    picture = (
        Image.fromarray(np.asarray(gray, np.uint16) * 257) if mode == "I;16" else gray.convert("RGB").convert(mode)
    )
    data = encoded(picture, image_format)
    image = normalise(data)
    pixels = model_pixels(image.data)
    expected = np.asarray(gray.resize((SQUARE.width_px, SQUARE.height_px)).convert("RGB"), int)
    if mode != "1":
        assert np.abs(pixels.astype(int) - expected).mean() < 12
    assert decoded(image.thumbnail_jpeg).format == "JPEG"


def test_alpha_is_kept_and_seen_on_white() -> None:
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    image = normalise(encoded(clear, "WEBP", lossless=True))
    assert image.mime_type == "image/png"
    assert decoded(image.data).mode == "RGBA"
    assert model_pixels(image.data).min() == 255
    assert np.asarray(decoded(image.thumbnail_jpeg)).min() > 250


def test_foreign_colours_become_srgb() -> None:
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    swapped = _a_profile_with_red_and_blue_swapped(lab.tobytes())
    red = encoded(Image.new("RGB", (64, 64), (200, 30, 30)), "PNG", icc_profile=swapped)
    image = normalise(red)
    assert b"iCCP" not in image.data
    r, _, b = decoded(image.data).convert("RGB").getpixel((5, 5))  # type: ignore[misc]
    assert b > r
    assert model_pixels(red)[0, 0, 2] > model_pixels(red)[0, 0, 0]


def _a_profile_with_red_and_blue_swapped(profile: bytes) -> bytes:
    """sRGB's own profile, renamed, with the primaries of red and blue exchanged."""
    return (
        profile.replace(b"rXYZ", b"tmp!")
        .replace(b"bXYZ", b"rXYZ")
        .replace(b"tmp!", b"bXYZ")
        .replace("sRGB".encode("utf-16-be"), "xRGB".encode("utf-16-be"))
    )


def test_a_broken_profile_is_ignored() -> None:
    image = normalise(encoded(a_picture(), "JPEG", icc_profile=b"no profile at all"))
    assert np.array_equal(decoded(image.data), decoded(encoded(a_picture())))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_large_jpeg_of_one_colour_has_enough_bytes(subsampling: int, progressive: bool) -> None:
    picture = Image.new("RGB", (2001, 1503), "white")
    for options in ({"optimize": True}, {}):
        jpeg = encoded(picture, subsampling=subsampling, progressive=progressive, quality=1, **options)
        assert inspect(jpeg).width_px == 2001


def test_extensions_do_not_matter_and_content_does() -> None:
    assert inspect(encoded(a_picture(), "PNG")).format == "PNG"
    assert inspect(encoded(a_picture(), "WEBP")).format == "WEBP"
    assert inspect(encoded(a_picture(), "WEBP", lossless=True)).width_px == 320


def test_a_still_gif_and_a_picture_with_a_preview_are_one_picture() -> None:
    assert inspect(encoded(a_picture(), "GIF")).frames == 1
    preview = encoded(a_picture(), "MPO", save_all=True, append_images=[a_picture(40, 40)])
    assert normalise(preview).width_px == 320


def test_the_time_taken_is_read_with_its_zone() -> None:
    offsets = ("", "+02:00", "nonsense")
    files = [encoded(a_picture(), exif=exif_with(1, "2026:05:04 03:02:01", offset)) for offset in offsets]
    taken = [normalise(file).taken_time for file in files]
    utc = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    assert taken == [utc, datetime(2026, 5, 4, 1, 2, 1, tzinfo=UTC), utc]
    assert normalise(encoded(a_picture(), exif=exif_with(1, "not a time"))).taken_time is None
    assert normalise(encoded(a_picture())).taken_time is None


@pytest.mark.parametrize("size", [(1, 1), (2, 3000), (3000, 2), (257, 255)])
def test_odd_shapes_are_taken(size: tuple[int, int]) -> None:
    image = normalise(encoded(a_picture(*size), "PNG"))
    assert (image.width_px, image.height_px) == size
    assert max(decoded(image.thumbnail_jpeg).size) <= 256
    assert model_pixels(image.data).shape == (256, 256, 3)


def test_near_duplicates_differ_in_few_bits_and_others_in_many() -> None:
    def distance(one: bytes, other: bytes) -> int:
        return (normalise(one).perceptual_hash ^ normalise(other).perceptual_hash).bit_count()

    picture = a_picture(640, 480)
    original = encoded(picture, quality=95)
    assert distance(original, encoded(picture, quality=40)) <= 6
    assert distance(original, encoded(picture.resize((300, 225)))) <= 6
    assert distance(original, encoded(picture.convert("L"), "PNG")) <= 6
    others = [distance(original, encoded(a_picture(640, 480, seed=seed))) for seed in range(20, 30)]
    assert min(others) > 12
    assert 0 <= normalise(original).perceptual_hash < 2**64


@pytest.mark.parametrize("level", [0, 64, 128, 255])
@pytest.mark.parametrize("noise", [0, 8])
def test_a_flat_picture_has_no_perceptual_hash(level: int, noise: int) -> None:
    grains = np.random.default_rng(level).normal(level, noise, (240, 320, 3))
    flat = Image.fromarray(np.clip(grains, 0, 255).astype(np.uint8))
    assert normalise(encoded(flat)).perceptual_hash == 0
    faint = Image.fromarray(np.tile(np.linspace(100, 110, 320), (240, 1)).astype(np.uint8))
    assert normalise(encoded(faint)).perceptual_hash != 0


GIF_HEAD = b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0, 0, 0)
TINY_PARTS: dict[str, bytes] = {
    "GIF of tiny blocks": GIF_HEAD + b"\x21\xfe" + b"\x01x" * 8_000_000 + b"\x00;",
    "GIF of empty extensions": GIF_HEAD + b"\x21\xfe\x00" * 5_000_000 + b";",
    "JPEG of empty segments": b"\xff\xd8" + b"\xff\xfe\x00\x02" * 4_000_000 + b"\xff\xd9",
    "JPEG of lone markers": b"\xff\xd8" + b"\xff\x01" * 8_000_000,
    "JPEG of fill bytes": b"\xff\xd8" + b"\xff" * 16_000_000,
    "PNG of empty chunks": a_png_of(8, 8)[:-12] + png_chunk(b"teSt", b"") * 1_000_000,
    "WebP of empty chunks": b"RIFF" + struct.pack("<I", 8_000_004) + b"WEBP" + b"XXXX\x00\x00\x00\x00" * 1_000_000,
}


@pytest.mark.parametrize("name", TINY_PARTS)
def test_files_of_millions_of_parts_are_refused_quickly(name: str) -> None:
    begin = time.process_time()
    with pytest.raises(InvalidArgument) as refused:
        inspect(TINY_PARTS[name])
    assert refused.value.reason in {"IMAGE_TOO_EXPENSIVE", "IMAGE_TRUNCATED"}
    assert time.process_time() - begin < 2


def test_a_png_with_private_text_keeps_pixels_alone() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "somebody private")
    image = normalise(encoded(a_picture(), "PNG", pnginfo=text))
    assert b"private" not in image.data
    assert np.array_equal(decoded(image.data), a_picture())
