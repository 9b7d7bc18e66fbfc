"""The folder that is shipped. What verifies it needs onnxruntime and numpy alone."""
