"""Names of the source classes and of broad groups of them, as texts for the text tower."""

from functools import cache

from mr_core.torchvision_compat import declare_missing_operators

declare_missing_operators()

from timm.data.imagenet_info import ImageNetInfo  # noqa: E402  (imports torchvision, which needs the operators declared first)

N_CLASSES = 1000
TEMPLATES = ("{}", "a {}", "a photo of a {}", "a picture of a {}", "an image of a {}", "a photo of the {}")

# Broad names over index ranges of the usual class order, first and last included.
_RANGES: dict[str, list[tuple[int, int]]] = {
    "fish": [(0, 6), (389, 397)],
    "shark": [(2, 4)],
    "bird": [(7, 24), (80, 100), (127, 146)],
    "amphibian": [(25, 32)],
    "frog": [(30, 32)],
    "turtle": [(33, 37)],
    "lizard": [(38, 48)],
    "crocodile": [(49, 50)],
    "reptile": [(33, 68)],
    "dinosaur": [(51, 51)],
    "snake": [(52, 68)],
    "spider": [(72, 77)],
    "duck": [(97, 99)],
    "parrot": [(87, 90)],
    "crab": [(118, 121), (125, 125)],
    "lobster": [(122, 124)],
    "whale": [(147, 148)],
    "dog": [(151, 268)],
    "wolf": [(269, 272)],
    "fox": [(277, 280)],
    "cat": [(281, 285)],
    "wild cat": [(286, 293)],
    "bear": [(294, 297)],
    "beetle": [(300, 307)],
    "insect": [(300, 326)],
    "butterfly": [(321, 326)],
    "rabbit": [(330, 332)],
    "rodent": [(333, 338)],
    "horse": [(339, 339)],
    "pig": [(341, 343)],
    "cow": [(345, 347)],
    "sheep": [(348, 350)],
    "antelope": [(351, 353)],
    "deer": [(351, 353)],
    "monkey": [(370, 382)],
    "ape": [(365, 369)],
    "elephant": [(385, 386)],
    "panda": [(387, 388)],
    "animal": [(0, 397)],
    "fungus": [(991, 997)],
    "fruit": [(948, 957)],
    "vegetable": [(936, 947)],
}

# Broad names over class names.
_MEMBERS: dict[str, list[str]] = {
    "car": [
        *(
            "ambulance",
            "beach wagon",
            "cab",
            "convertible",
            "jeep",
            "limousine",
            "minivan",
            "Model T",
            "racer",
            "sports car",
        ),
    ],
    "truck": ["fire engine", "garbage truck", "moving van", "pickup", "police van", "tow truck", "trailer truck"],
    "airplane": ["airliner", "warplane"],
    "ship": [
        *(
            "aircraft carrier",
            "container ship",
            "liner",
            "pirate",
            "schooner",
            "submarine",
            "wreck",
            "fireboat",
            "trimaran",
        ),
    ],
    "boat": ["canoe", "catamaran", "fireboat", "gondola", "lifeboat", "speedboat", "trimaran", "yawl", "schooner"],
    "bus": ["school bus", "minibus", "trolleybus"],
    "train": ["bullet train", "electric locomotive", "freight car", "passenger car", "steam locomotive"],
    "bicycle": ["bicycle-built-for-two", "mountain bike", "tricycle", "unicycle"],
    "motorcycle": ["moped", "motor scooter"],
    "guitar": ["acoustic guitar", "electric guitar"],
    "house": ["barn", "boathouse", "mobile home", "palace", "monastery"],
    "tower": ["bell cote", "beacon", "obelisk", "water tower"],
    "clock": ["analog clock", "digital clock", "wall clock"],
    "watch": ["digital watch", "stopwatch"],
    "computer": ["desktop computer", "laptop", "notebook", "hand-held computer"],
    "telephone": ["cellular telephone", "dial telephone", "pay-phone"],
    "chair": ["barber chair", "folding chair", "rocking chair"],
    "bottle": ["beer bottle", "pill bottle", "pop bottle", "water bottle", "wine bottle"],
    "ball": [
        "baseball",
        "basketball",
        "croquet ball",
        "golf ball",
        "rugby ball",
        "soccer ball",
        "tennis ball",
        "volleyball",
    ],
    "gun": ["assault rifle", "revolver", "rifle"],
    "hat": ["bonnet", "cowboy hat", "bathing cap", "shower cap", "mortarboard", "sombrero"],
    "shoe": ["clog", "cowboy boot", "Loafer", "running shoe", "sandal"],
    "flower": ["daisy", "yellow lady's slipper"],
    "mountain": ["alp", "volcano"],
    "sea": ["seashore", "sandbar", "breakwater", "coral reef"],
    "traffic sign": ["street sign", "traffic light"],
}


@cache
def lemmas() -> list[list[str]]:
    """The names of each source class, the usual one first."""
    info = ImageNetInfo()
    return [info.index_to_description(index).split(", ") for index in range(N_CLASSES)]


@cache
def definitions() -> list[str]:
    """The dictionary definition of each source class."""
    info = ImageNetInfo()
    return [info.index_to_description(index, detailed=True).split(": ", 1)[1] for index in range(N_CLASSES)]


@cache
def class_names() -> list[str]:
    """One name per source class, all different."""
    special = {134: "crane (bird)", 264: "Cardigan Welsh corgi", 517: "crane (machine)", 639: "tank suit"}
    names = [special.get(index, names[0]) for index, names in enumerate(lemmas())]
    if len(set(names)) != N_CLASSES:
        raise ValueError("class names repeat")
    return names


@cache
def groups() -> dict[str, list[int]]:
    """Source class indices of each broad name."""
    result = {name: [i for first, last in spans for i in range(first, last + 1)] for name, spans in _RANGES.items()}
    position = {name: index for index, name in enumerate(class_names())}
    return result | {name: [position[member] for member in members] for name, members in _MEMBERS.items()}
