"""Training of learned vocoders: waves -> a run folder with a vocoder file."""
