"""Builds, reads and describes ONNX graphs, and holds the large arrays they refer to."""
