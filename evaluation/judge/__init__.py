"""Judges pairs of pictures of the same prompts: by a model behind a chat server, and by people."""
