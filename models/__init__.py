"""Front ends, the CNN, and its one-file ONNX export."""
