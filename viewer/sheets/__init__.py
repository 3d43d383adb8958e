"""The tables of `sigma stats`: `stats.shown_stats` chooses them, and a `sheet.Sheet` prints or writes one."""
