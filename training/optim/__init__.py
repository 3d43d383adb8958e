"""Sums a batch's gradient and averages the weights; others use `accumulate_gradients` and `AveragedModel`."""
