"""Numbers that say how good codes and reconstructions are. Plain arrays in, plain numbers out."""
