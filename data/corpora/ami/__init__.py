"""AMI meetings, from a folder or from the hub."""
