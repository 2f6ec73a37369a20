"""Generated captioned scenes: coloured shapes, counts, sizes and places on plain, graded or noisy grounds."""

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDE = 224
COLOURS = {
    "red": (215, 35, 35),
    "green": (40, 160, 60),
    "blue": (40, 80, 210),
    "yellow": (240, 215, 40),
    "orange": (240, 135, 25),
    "purple": (130, 50, 160),
    "pink": (245, 140, 185),
    "brown": (120, 75, 40),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
    "grey": (128, 128, 128),
    "cyan": (60, 205, 215),
}
SHAPES = (
    "circle",
    "square",
    "triangle",
    "star",
    "cross",
    "ring",
    "diamond",
    "bar",
    "crescent",
    "arrow",
    "hexagon",
    "wave",
)
COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}
PLACES = {"top": (0, -1), "bottom": (0, 1), "left": (-1, 0), "right": (1, 0), "centre": (0, 0)}
GROUNDS = ("plain", "graded", "noisy")


@dataclass(frozen=True)
class Scene:
    """An image with what is on it; `place` is empty where there are several objects."""

    image: Image.Image
    count: int
    colour: str
    shape: str
    place: str
    ground: str

    def caption(self, rng: random.Random) -> str:
        """One of several true descriptions, from terse to full."""
        noun = self.shape if self.count == 1 else plural(self.shape)
        amount = article(self.colour) if self.count == 1 else COUNTS[self.count]
        short = f"{self.colour} {noun}"
        where = f" at the {self.place}" if self.place else ""
        ground = f" on a {self.ground} background"
        texts = [f"{amount} {short}", f"a photo of {amount} {short}", f"a picture of {amount} {short}{where}"]
        texts += [f"{amount} {short}{where}{ground}", f"{amount} {short}{ground}", f"a drawing of {amount} {short}"]
        return rng.choice(texts)


def article(word: str) -> str:
    """`a` or `an`."""
    return "an" if word[0] in "aeiou" else "a"


def plural(noun: str) -> str:
    """Plural of one of the shapes."""
    return noun + ("es" if noun.endswith(("s", "x")) else "s")


def generate(rng: random.Random) -> Scene:
    """A random scene of `SIDE` pixels."""
    colour, ground_colour = rng.sample(sorted(COLOURS), 2)
    shape, ground, count = rng.choice(SHAPES), rng.choice(GROUNDS), rng.choice((1, 1, 1, 2, 3, 4))
    place = rng.choice(sorted(PLACES)) if count == 1 else ""
    image = background(ground, COLOURS[ground_colour], rng)
    draw = ImageDraw.Draw(image)
    for x, y, radius in positions(count, place, rng):
        draw_shape(draw, shape, jittered(COLOURS[colour], rng), x, y, radius, rng.uniform(-0.3, 0.3))
    return Scene(image, count, colour, shape, place, ground)


def background(kind: str, colour: tuple[int, int, int], rng: random.Random) -> Image.Image:
    """A square filled with one colour, with a gradient away from it, or with noise around it."""
    noise = np.random.default_rng(rng.getrandbits(32))
    field = np.broadcast_to(np.array(jittered(colour, rng), dtype=np.float32), (SIDE, SIDE, 3)).copy()
    if kind == "graded":
        ramp = np.linspace(rng.uniform(0.3, 0.7), 1.0, SIDE, dtype=np.float32)
        field *= ramp[:, None, None] if rng.random() < 0.5 else ramp[None, :, None]
    elif kind == "noisy":
        cells = noise.normal(0, 35, (SIDE // 4, SIDE // 4, 3)).astype(np.float32)
        field += np.kron(cells, np.ones((4, 4, 1), dtype=np.float32))
    return Image.fromarray(field.clip(0, 255).astype(np.uint8))


def positions(count: int, place: str, rng: random.Random) -> list[tuple[float, float, float]]:
    """Centre and radius of each object, apart from one another."""
    middle = SIDE / 2
    if count == 1:
        x, y = PLACES[place]
        radius = rng.uniform(22, 60)
        reach = middle - radius - 6
        return [(middle + x * reach, middle + y * reach, radius)]
    cells = rng.sample([(x, y) for x in (-1, 1) for y in (-1, 1)], count)
    return [
        (middle + 54 * x + rng.uniform(-12, 12), middle + 54 * y + rng.uniform(-12, 12), rng.uniform(20, 38))
        for x, y in cells
    ]


def jittered(colour: tuple[int, int, int], rng: random.Random) -> tuple[int, int, int]:
    """The colour, a little off."""
    red, green, blue = (max(0, min(255, channel + rng.randint(-14, 14))) for channel in colour)
    return red, green, blue


def draw_shape(
    draw: ImageDraw.ImageDraw, shape: str, fill: tuple[int, int, int], x: float, y: float, radius: float, turn: float
) -> None:
    """Draw one shape around (x, y), turned by `turn` radians where that shows."""
    box = (x - radius, y - radius, x + radius, y + radius)
    width = max(3, int(radius / 4))
    if shape == "circle":
        draw.ellipse(box, fill=fill)
    elif shape == "ring":
        draw.ellipse(box, outline=fill, width=width)
    elif shape == "crescent":
        draw.arc(box, 60 + math.degrees(turn), 300 + math.degrees(turn), fill=fill, width=2 * width)
    elif shape == "wave":
        points = [(x + radius * (t / 12 - 1), y + radius / 2 * math.sin(t / 24 * 4 * math.pi)) for t in range(25)]
        draw.line(points, fill=fill, width=width, joint="curve")
    else:
        draw.polygon([rotated(x, y, radius * px, radius * py, turn) for px, py in outline(shape)], fill=fill)


def rotated(x: float, y: float, dx: float, dy: float, turn: float) -> tuple[float, float]:
    """The point (x + dx, y + dy) turned around (x, y)."""
    return x + dx * math.cos(turn) - dy * math.sin(turn), y + dx * math.sin(turn) + dy * math.cos(turn)


def outline(shape: str) -> list[tuple[float, float]]:
    """Corners of a polygon inside the unit circle."""
    if shape == "star":
        return [
            (
                (1.0 if k % 2 == 0 else 0.42) * math.sin(k * math.pi / 5),
                -(1.0 if k % 2 == 0 else 0.42) * math.cos(k * math.pi / 5),
            )
            for k in range(10)
        ]
    if shape == "cross":
        a, b = 0.3, 0.95
        return [
            (-a, -b),
            (a, -b),
            (a, -a),
            (b, -a),
            (b, a),
            (a, a),
            (a, b),
            (-a, b),
            (-a, a),
            (-b, a),
            (-b, -a),
            (-a, -a),
        ]
    if shape == "arrow":
        return [(-1, -0.25), (0.1, -0.25), (0.1, -0.7), (1, 0), (0.1, 0.7), (0.1, 0.25), (-1, 0.25)]
    if shape == "bar":
        return [(-1, -0.22), (1, -0.22), (1, 0.22), (-1, 0.22)]
    corners, start = {"triangle": (3, 0.0), "square": (4, math.pi / 4), "diamond": (4, 0.0), "hexagon": (6, 0.0)}[shape]
    narrow = 0.65 if shape == "diamond" else 1.0
    return [
        (narrow * math.sin(start + 2 * math.pi * k / corners), -math.cos(start + 2 * math.pi * k / corners))
        for k in range(corners)
    ]
