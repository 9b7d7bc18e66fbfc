"""MLflow's model registry, and the champion in it."""
