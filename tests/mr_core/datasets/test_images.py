import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mr_core.datasets.images import describe_bytes, open_image, prepare_image
from mr_core.datasets.limits import ArchiveLimits
from mr_core.errors import UnreadableImage


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "JPEG"])
def test_accepts_format(encode, noise, image_format):
    options = {"lossless": True} if image_format == "WEBP" else {}
    opened = open_image(encode(noise(), image_format, **options))
    assert (opened.mode, opened.size) == ("RGB", (8, 6))
    if image_format != "JPEG":
        assert opened.tobytes() == noise().tobytes()


@pytest.mark.parametrize("image_format", ["GIF", "BMP", "TIFF", "PPM"])
def test_refuses_other_formats(encode, noise, image_format):
    with pytest.raises(UnreadableImage, match="not a jpeg, png or webp"):
        open_image(encode(noise(), image_format))


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_refuses_animation(encode, noise, image_format):
    data = encode(noise(0), image_format, save_all=True, append_images=[noise(1), noise(2)])
    with pytest.raises(UnreadableImage, match="animated"):
        open_image(data)


def test_refuses_animated_gif(encode, noise):
    with pytest.raises(UnreadableImage, match="begins with a gif image"):
        open_image(encode(noise(0), "GIF", save_all=True, append_images=[noise(1)]))


def test_takes_the_photo_of_a_jpeg_with_a_second_picture(encode, noise):
    data = encode(noise(0, size=(64, 48)), "MPO", save_all=True, append_images=[noise(1, size=(64, 48))])
    assert open_image(data).size == (64, 48)


def test_refuses_what_is_cut_short(encode, noise):
    for image_format in ("PNG", "JPEG", "WEBP"):
        data = encode(noise(size=(64, 64)), image_format)
        with pytest.raises(UnreadableImage):
            open_image(data[: len(data) // 2])


def test_refuses_a_flipped_bit_in_png(png):
    data = bytearray(png(size=(64, 64)))
    data[len(data) // 2] ^= 1
    with pytest.raises(UnreadableImage, match="cannot be decoded"):
        open_image(bytes(data))


def test_refuses_nothing_at_all():
    with pytest.raises(UnreadableImage, match="empty"):
        open_image(b"")


@pytest.mark.parametrize("side", [7000, 20_000])
def test_refuses_many_pixels_by_the_header_alone(side):
    """A few bytes of png that declare a picture of gigabytes: Pillow's own warning and error included."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(UnreadableImage, match="pixels"):
        open_image(bomb)


def test_limits_the_side(png):
    with pytest.raises(UnreadableImage, match="limit for a side is 7"):
        open_image(png(), limits=ArchiveLimits(image_side=7))


def test_applies_orientation_and_drops_metadata(encode, noise):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    exif[0x010E] = "a secret"
    opened = open_image(encode(noise(), "PNG", exif=exif))
    assert opened.tobytes() == noise().transpose(Image.Transpose.ROTATE_270).tobytes()


def test_scales_sixteen_bits(encode):
    values = np.array([[0, 128, 257, 32768, 65535]], dtype=np.uint16)
    opened = open_image(encode(Image.fromarray(values)))
    assert opened.mode == "L"
    assert np.asarray(opened).tolist() == [[0, 0, 1, 128, 255]]


def test_lays_transparency_on_white(encode):
    pixels = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], dtype=np.uint8)
    assert np.asarray(open_image(encode(Image.fromarray(pixels)))).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    grey = Image.fromarray(np.array([[[7, 255], [7, 0]]], dtype=np.uint8), "LA")
    assert np.asarray(open_image(encode(grey))).tolist() == [[7, 255]]


def test_palette_with_a_transparent_colour(encode):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    opened = open_image(encode(palette, transparency=1))
    assert np.asarray(opened).tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize(("mode", "expected"), [("1", "L"), ("L", "L"), ("LA", "L"), ("P", "RGB"), ("RGBA", "RGB")])
def test_brings_modes_to_grey_or_rgb(encode, noise, mode, expected):
    assert open_image(encode(noise(mode=mode))).mode == expected


def test_cmyk_jpeg_becomes_rgb(encode, noise):
    assert open_image(encode(noise(mode="CMYK"), "JPEG")).mode == "RGB"


def test_reduces_a_long_shorter_side_alone(png):
    assert open_image(png(size=(520, 1040))).size == (512, 1024)
    assert open_image(png(size=(512, 900))).size == (512, 900)


def test_reads_a_file(tmp_path, png):
    (tmp_path / "a.png").write_bytes(png())
    assert open_image(tmp_path / "a.png").size == (8, 6)


def test_an_image_with_an_archive_behind_it_gives_its_pixels_alone(encode, noise):
    data = encode(noise(), "PNG") + b"PK\x03\x04 something else"
    assert open_image(data).tobytes() == noise().tobytes()


def test_prepare_leaves_the_right_size_untouched(noise):
    image = noise(size=(9, 9))
    prepared = prepare_image(image, size=9, fit="crop", interpolation="bicubic")
    assert (prepared == np.asarray(image).transpose(2, 0, 1)).all()
    assert prepared.flags.c_contiguous


def test_prepare_makes_grey_three_equal_channels(noise):
    prepared = prepare_image(noise(mode="L"), size=5, fit="stretch", interpolation="bilinear")
    assert prepared.shape == (3, 5, 5)
    assert (prepared == prepared[:1]).all()


def test_prepare_stretch_is_a_plain_resize(noise):
    image = noise(size=(40, 30))
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert (prepare_image(image, size=16, fit="stretch", interpolation="bilinear") == expected).all()


@pytest.mark.parametrize("size", [(40, 30), (31, 77), (12, 500), (64, 65)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_prepare_crop_is_resize_then_centre_crop(noise, size, interpolation):
    """torchvision's Resize(24), CenterCrop(24), worked out on the whole image.

    Smooth, as Pillow takes rows or columns first by what costs less, and clips what overshoots in between.
    """
    image = noise(size=(4, 4)).resize(size, Image.Resampling.BICUBIC)
    shorter = min(size)
    width, height = (24 if side == shorter else int(24 * side / shorter) for side in size)
    left, top = round((width - 24) / 2), round((height - 24) / 2)
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[interpolation]
    whole = image.resize((width, height), method).crop((left, top, left + 24, top + 24))
    prepared = prepare_image(image, size=24, fit="crop", interpolation=interpolation)
    assert np.abs(prepared.astype(int) - np.asarray(whole).transpose(2, 0, 1)).max() <= 2


def test_prepare_crop_of_a_line_costs_no_more_than_another():
    assert prepare_image(Image.new("RGB", (30_000, 1)), size=64, fit="crop", interpolation="bicubic").shape == (
        3,
        64,
        64,
    )


def test_describes_bytes_in_words():
    assert describe_bytes(b"%PDF-1.7") == "a PDF"
    assert describe_bytes(b"<html><body>") == "text ('<html><body>')"
    assert describe_bytes(b"\x00\x01\x02") == "the bytes 00 01 02"
    assert describe_bytes(b"") == "nothing"
