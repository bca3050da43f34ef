"""Named configurations: data, not code."""
