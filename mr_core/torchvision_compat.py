"""Lets torchvision's wheel, built against CUDA torch, be imported beside a CPU build of torch.

Its import registers rules for two operators that only its CUDA library defines, and dies without
them. Only transforms and model definitions are used here, so declaring the operators is enough.
"""

import importlib.util

import torch

_LIBRARIES: list[torch.library.Library] = []  # a library is undone when collected: keep it alive


def declare_missing_operators() -> None:
    """Declare `torchvision::nms` and `qnms` where torch is a CPU build and they are not defined.

    Does nothing on a CUDA build of torch, without torchvision, or when called again.
    """
    if _LIBRARIES or torch.version.cuda is not None or importlib.util.find_spec("torchvision") is None:
        return
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
    _LIBRARIES.append(library)
