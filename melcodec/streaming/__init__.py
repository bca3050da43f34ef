"""Streams: sound to codes and back, block by block, as it comes, with the codes of one pass."""
