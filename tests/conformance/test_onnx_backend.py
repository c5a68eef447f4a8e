"""onnx's backend suite, every offline test of it, against the engine."""

from __future__ import annotations

import onnx.backend.test
from conformance.onnx_backend import EngineBackend

_suite = onnx.backend.test.BackendTest(EngineBackend, __name__)
_suite.exclude(r"_cuda$")
# Real models whose weights the suite would download.
_suite.exclude(r"test_(bvlc_alexnet|densenet121|inception_v1|inception_v2|resnet50|shufflenet|squeezenet|vgg19|zfnet512)_")

globals().update(_suite.test_cases)
