"""Turns pictures into latents and captions into vectors; others use `Encoders`, `codec_for` and `text_encoder_for`."""
