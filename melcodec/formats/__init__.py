"""Files that melcodec owns or exchanges: checkpoints, codes, mels, and XTTS weights. No pickle is ever written or trusted."""
