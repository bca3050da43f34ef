"""Codebooks: latents (B, D, N) -> codes (B, Q, N) -> latents (B, D, N)."""
