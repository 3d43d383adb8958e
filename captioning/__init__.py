"""Captioning writes captions for kept pictures, cleans raw ones, mixes the two and counts their nouns. Each job is one
file. `commands.order` uses the jobs' `stage` and `reduce`, the viewer the queries of `figures`, and the commands
`captioners.share_captioner.validate`."""
