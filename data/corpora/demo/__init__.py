"""Generated, speech-like voices: a corpus that needs no download."""
