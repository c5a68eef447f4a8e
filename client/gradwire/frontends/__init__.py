"""Converts what users write (NumPy, PyTorch, JAX, scikit-learn, ONNX files) to graphs."""
