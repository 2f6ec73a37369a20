"""`builtin/mini-clip`: the small image-and-text source model that ships inside the package."""
