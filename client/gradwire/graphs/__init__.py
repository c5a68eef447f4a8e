"""ONNX graphs on the client: built, read, described, and the large arrays they refer to."""
