"""What a worker does: windows to features to a trained network to files. Knows no MLflow."""
