"""What an approximation of a kernel does not say, whoever asks."""

from abc import ABC, abstractmethod
from typing import Literal, final

Method = Literal["lanczos", "stochastic_lanczos_quadrature", "nystrom", "random_projection"]


class Approximate(ABC):
    """A result that knows the top or the shape of a spectrum and not its bottom.

    Lanczos finds the smallest eigenvalues last, a projection to 512 columns scaled the smallest one by 0.24 where the
    largest was 2 % off, and a factor of low rank has none but 0. So there is no number to give.
    """

    @property
    @abstractmethod
    def method(self) -> Method:
        """How it was made."""

    @property
    @final
    def lambda_min(self) -> None:
        """None, for the reason in `reason`."""
        return None

    @property
    @final
    def condition_number(self) -> None:
        """None, for the reason in `reason`."""
        return None

    @property
    @final
    def reason(self) -> Literal["approximate"]:
        """Why the smallest eigenvalue and the condition number are None."""
        return "approximate"
