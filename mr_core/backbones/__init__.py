"""Frozen source models: described without torch, loaded with it."""
