"""ONNX: a checkpoint as graphs that run without torch, and what runs them in Python. Extra ``onnx``."""
