"""Rules of scientific computing: the `gradwire.sci` domain, version 1, and signal processing.

The domain holds operators that science needs and ONNX lacks. Inputs are float64 or float32 and
outputs have the same dtype unless said otherwise; matrices may be stacked along leading axes.
Unless a module says otherwise, derivatives exist in both modes and of any order. Each module
lists its operators with their inputs, attributes (with defaults) and outputs.
"""
