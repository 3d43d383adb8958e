"""Numbers per picture: the jobs `aesthetic` and `screen`, the only doors. `select` applies the thresholds."""
