"""Exact faster forms of frozen backbones, each checked against the stock model before it is used."""

from mr_core.engine.accelerate import accelerate

__all__ = ["accelerate"]
