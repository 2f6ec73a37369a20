"""Source models and architectures that ship with the package."""
