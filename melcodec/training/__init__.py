"""Training: a folder of speech in, a checkpoint out."""
