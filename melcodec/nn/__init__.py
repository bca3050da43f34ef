"""Backbones: mel (B, M, T) -> latents (B, D, N), and back."""
