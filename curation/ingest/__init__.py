"""Inputs become the tables `listing`, `images`, `proxies` and `headers`; the log of takedowns keeps some out. The order
of jobs uses `listing`, `ingest`, `headers` and `retry`; upkeep uses `takedown_log`."""
