"""Scorers of benchmarks: what GenEval's detector sees and DPG-Bench's answerer says, judged by `evaluation.rules`."""
