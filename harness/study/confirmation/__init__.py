"""What fresh seeds say of a study's configurations, read from the study."""
