"""The sweep harness: the only package that composes data and models."""
