"""Models finds, loads and names weights for every room, chooses devices, finds tokenizers and runs CLIP."""
