"""Empirical neural tangent kernels: computed exactly, decomposed, and read before any training."""

from mr_core.ntk.bfloat16 import bfloat16_kernel
from mr_core.ntk.empirical import empirical_ntk, tangent_kernel
from mr_core.ntk.kernel import Kind, TangentKernel

__all__ = ["Kind", "TangentKernel", "bfloat16_kernel", "empirical_ntk", "tangent_kernel"]
