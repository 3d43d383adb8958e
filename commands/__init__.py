"""What a user types: one function per command of `sigma`, the order of the jobs, and what the terminal shows."""
