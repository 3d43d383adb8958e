"""Runs a trained model outside of torch's training loop; others use `load_runtime` and `Denoiser` of `denoiser`."""
