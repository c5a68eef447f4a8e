"""NumPy's and SciPy's elementwise functions as ONNX operators, on values of a graph.

A rule is found by the ufunc's name, and its meaning is in NumPy's or SciPy's documentation. It receives one
`Value` for each operand, in the dtypes of the loop that NumPy resolves, not broadcast yet, and returns one
`Value` for each result, which the caller casts to the loop's dtypes. It raises `TraceError` for what a graph
cannot hold.
"""
