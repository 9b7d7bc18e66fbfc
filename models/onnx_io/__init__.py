"""ONNX files: read, open, run, compose."""
