"""Rules score benchmarks of prompt following from what a detector or a question answerer has said: pure functions."""
