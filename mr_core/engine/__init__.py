"""Faster forms of frozen backbones, each checked against the stock model before it is used."""

from mr_core.engine.accelerate import Precision, accelerate

__all__ = ["Precision", "accelerate"]
