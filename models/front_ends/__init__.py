"""From a waveform to features: configurations without torch, and the modules that compute them."""
