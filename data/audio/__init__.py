"""Audio files to float32 mono at 16 kHz: decoding, pitch and tempo variants, where speech is."""
