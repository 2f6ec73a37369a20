"""What requests cost and what may be spent on them. Torch-free."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Requests and the images in them."""

    calls: int = 0
    images: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.calls + other.calls, self.images + other.images)

    def __mul__(self, times: int) -> "Cost":
        return Cost(self.calls * times, self.images * times)


@dataclass(frozen=True)
class Limit:
    """What may be spent; None is no limit."""

    calls: int | None = None
    images: int | None = None

    def bears(self, cost: Cost) -> bool:
        """Whether so much may be spent."""
        return (self.calls is None or cost.calls <= self.calls) and (self.images is None or cost.images <= self.images)

    def without(self, cost: Cost) -> "Limit":
        """What is left to spend where this is kept for later."""
        return Limit(
            None if self.calls is None else self.calls - cost.calls,
            None if self.images is None else self.images - cost.images,
        )

    def __str__(self) -> str:
        told = [f"{n} {what}" for n, what in ((self.calls, "calls"), (self.images, "images")) if n is not None]
        return " and ".join(told) or "no limit"
