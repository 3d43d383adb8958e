"""Statistics of the captions: the jobs that write them (`statistics`), and the queries that read them (`queries`)."""
