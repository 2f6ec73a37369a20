"""One image: decoded from untrusted bytes, brought to one form, fitted to a square."""

import threading
import warnings
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from mr_core.backbones.description import Interpolation
from mr_core.datasets.limits import DEFAULT_LIMITS, ArchiveLimits
from mr_core.errors import UnreadableImage
from mr_core.input_transforms.base import Fit

ACCEPTED_FORMATS = ("JPEG", "PNG", "WEBP")

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_opening = threading.Lock()  # warnings.catch_warnings changes the filters of the whole process


@dataclass(frozen=True)
class DecodedImage:
    """An image in the form it is packed in, and what it was before: its mode, width and height as uploaded."""

    image: Image.Image
    mode: str
    size: tuple[int, int]
    is_reduced: bool


def open_image(source: bytes | Path, *, limits: ArchiveLimits = DEFAULT_LIMITS) -> Image.Image:
    """An untrusted jpeg, png or webp in mode L or RGB; UnreadableImage with the reason where it is refused.

    The very steps that packing a dataset takes, so an image has the same pixels in training and prediction:
    EXIF orientation applied, metadata and colour profile dropped, transparency laid on white, 16-bit grey
    scaled to 8, CMYK turned to RGB, and a shorter side over 512 pixels reduced to 512.
    """
    return decode_image(source.read_bytes() if isinstance(source, Path) else source, limits).image


def decode_image(data: bytes, limits: ArchiveLimits) -> DecodedImage:
    """As `open_image`, with what was found on the way."""
    if not data:
        raise UnreadableImage("the file is empty")
    try:
        with _opening, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data), formats=ACCEPTED_FORMATS) as unverified:
                _check_header(unverified, limits)
                unverified.verify()
            image = Image.open(BytesIO(data), formats=ACCEPTED_FORMATS)  # verify() spends the first one
            orientation = image.getexif().get(0x0112, 1)
        image.load()
        return normalise_image(image, limits, is_rotated=orientation != 1)
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(f"not a jpeg, png or webp image: begins with {describe_bytes(data)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"more than {limits.image_pixels} pixels") from error
    except MemoryError as error:
        raise UnreadableImage("decoding it takes more memory than is allowed") from error
    except Exception as error:  # on hostile bytes the decoders raise OSError, SyntaxError, struct.error and others
        raise UnreadableImage(f"cannot be decoded: {error or type(error).__name__}") from error


def normalise_image(image: Image.Image, limits: ArchiveLimits, *, is_rotated: bool = False) -> DecodedImage:
    """A loaded image upright, in mode L or RGB, and reduced where it is large."""
    upright = ImageOps.exif_transpose(image) if is_rotated else image
    plain = _as_grey_or_rgb(upright)
    shorter = min(plain.size)
    is_reduced = shorter > limits.reduced_side
    if is_reduced:
        scale = limits.reduced_side / shorter
        width, height = (max(limits.reduced_side, round(side * scale)) for side in plain.size)
        plain = plain.resize((width, height), Image.Resampling.BICUBIC)
    return DecodedImage(image=plain, mode=image.mode, size=upright.size, is_reduced=is_reduced)


def prepare_image(image: Image.Image, *, size: int, fit: Fit, interpolation: Interpolation) -> NDArray[np.uint8]:
    """`(3, size, size)`, values 0 to 255; grey becomes three equal channels.

    `stretch` resizes both sides. `crop` is torchvision's Resize(size) then CenterCrop(size), computed for the
    central square alone, so that a very long image costs no more than another. Downscaling is antialiased
    (except nearest). An image that is already `size` by `size` is untouched.
    """
    plain = _as_grey_or_rgb(image)
    if plain.size != (size, size):
        box = None if fit == "stretch" else _central_square(plain.size, size)
        plain = plain.resize((size, size), _RESAMPLING[interpolation], box=box)
    pixels = np.asarray(plain, dtype=np.uint8)
    if pixels.ndim == 2:
        return np.repeat(pixels[None], 3, axis=0)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def describe_bytes(data: bytes) -> str:
    """What the first bytes look like, in words where they are known."""
    for offset, magic, words in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return words
    head = data[:8]
    if head and all(32 <= byte < 127 or byte in b"\r\n\t" for byte in data[:64]):
        return f"text ({data[:24].decode('ascii')!r})"
    return f"the bytes {head.hex(' ')}" if head else "nothing"


_MAGIC = [
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "gzip data"),
    (257, b"ustar", "a tar archive"),
    (0, b"BZh", "bzip2 data"),
    (0, b"\xfd7zXZ", "xz data"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!", "a rar archive"),
    (0, b"\x28\xb5\x2f\xfd", "zstandard data"),
    (0, b"PAR1", "a parquet file"),
    (0, b"\x93NUMPY", "a bare .npy array"),
    (0, b"\x89HDF", "an HDF5 file"),
    (0, b"%PDF", "a PDF"),
    (0, b"\x89PNG", "a png image"),
    (0, b"\xff\xd8\xff", "a jpeg image"),
    (8, b"WEBP", "a webp image"),
    (0, b"GIF8", "a gif image"),
    (0, b"II*\x00", "a tiff image"),
    (0, b"MM\x00*", "a tiff image"),
    (0, b"BM", "a bmp image"),
    (4, b"ftypavif", "an avif image"),
    (4, b"ftyphei", "a heic image"),
    (0, b"\x80\x04", "a pickle"),
    (0, b"MZ", "a Windows program"),
    (0, b"\x7fELF", "a Linux program"),
]


def _check_header(image: Image.Image, limits: ArchiveLimits) -> None:
    width, height = image.size
    if width * height > limits.image_pixels:
        raise UnreadableImage(f"{width} x {height} pixels, the limit is {limits.image_pixels} pixels")
    if max(width, height) > limits.image_side:
        raise UnreadableImage(f"{width} x {height} pixels, the limit for a side is {limits.image_side}")
    # A phone's jpeg may carry a depth map or a preview as a second picture (MPO); the first is the photo.
    if image.format != "MPO" and getattr(image, "is_animated", False):
        raise UnreadableImage(f"animated ({getattr(image, 'n_frames', 'several')} frames); one picture is expected")


def _as_grey_or_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return Image.fromarray(_sixteen_to_eight_bits(image))
    if image.mode in ("LA", "La"):
        return _on_white(image.convert("LA"), "L")
    if image.mode == "1" or (image.mode == "L" and "transparency" in image.info):
        return _on_white(image.convert("LA"), "L") if "transparency" in image.info else image.convert("L")
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"), "RGB")
    return image.convert("RGB")


def _on_white(image: Image.Image, mode: str) -> Image.Image:
    """An image with alpha as a viewer shows it on a white page."""
    background = Image.new(mode, image.size, "white")
    background.paste(image.convert(mode), mask=image.getchannel("A"))
    return background


def _sixteen_to_eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    return ((values * 255 + 32767) // 65535).astype(np.uint8)


def _central_square(image_size: tuple[int, int], size: int) -> tuple[float, float, float, float]:
    """The part of the image that ends up in the crop, in its own pixels (float)."""
    shorter = min(image_size)
    edges = []
    for side in image_size:
        resized = size if side == shorter else size * side // shorter
        first = round((resized - size) / 2)
        edges.append((first * side / resized, (first + size) * side / resized))
    (left, right), (top, bottom) = edges
    return left, top, right, bottom
