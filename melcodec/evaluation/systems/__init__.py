"""The systems that evaluate measures: each turns a sound into a sound. A further one is one file, and one line in ``build``."""
