"""Content-addressed folders of windows and features: written aside, read safely, collected."""
