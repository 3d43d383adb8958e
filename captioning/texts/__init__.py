"""Texts cleans, judges, counts and cuts captions as strings; the jobs of captioning use all of it."""
