"""MLflow: one study's runs in one experiment, and nothing of MLflow elsewhere but the model registry."""
