"""Trains PixArt-Σ on a dataset's shards, stage by stage; the commands use `train`, `encode`, `sample` and `export`.
`training.model`, `training.diffusion` and `training.came` import nothing of ours and can be lifted out."""
