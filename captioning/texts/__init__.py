"""Texts works on captions as strings: it cleans, judges, counts and cuts them; the jobs of captioning use all of it."""
