"""melcodec: speech to discrete codes and back."""

__version__ = "0.1.0"
