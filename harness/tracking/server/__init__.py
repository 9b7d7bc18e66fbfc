"""The record's own MLflow server, on loopback."""
