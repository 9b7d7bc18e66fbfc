"""Front ends, the CNN, and its one-file ONNX export: waveform (batch, sample) in, logits (batch, class) out."""
