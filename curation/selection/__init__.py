"""Selection decides which pictures are kept: `select` is the job, `thresholds` tries other rules."""
