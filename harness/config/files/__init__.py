"""From YAML to values, every mistake named with its line."""
