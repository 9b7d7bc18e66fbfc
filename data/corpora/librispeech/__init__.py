"""LibriSpeech, from a folder or from the hub."""
