"""What a training leaves for its run: weights, ONNX, predictions, figures."""
