"""Vocoders: natural log-mel (B, M, T) -> wav (B, S)."""
