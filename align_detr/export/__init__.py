"""Detectors as files that run without this library: ONNX and `torch.export` programs."""
