"""How the chunks of a long Griffin-Lim sound are joined, with torch as with NumPy."""

from __future__ import annotations

CHUNK_FRAMES = 4096  # a longer sound is made in chunks of so many mel frames
HALO = 16  # frames that neighbouring chunks share on each side of their seam; 186 ms
FADE = slice(0.25, 0.75)  # of the shared part: outside it one of the two chunks is too near its artificial end
HELD = 0.75  # share of it that keeps the earlier chunk's phases, or the two would drift apart and fade into each other softly
