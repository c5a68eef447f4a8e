"""Rules of classical machine learning: the `ai.onnx.ml` domain, and text processing."""
