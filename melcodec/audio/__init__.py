"""Waves and log-mel spectrograms: files in, mono float32 in [-1, 1] out; the XTTS front end and its inverse."""
