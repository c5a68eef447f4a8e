"""NumPy's and SciPy's elementwise functions as ONNX operators, on values of a graph."""
