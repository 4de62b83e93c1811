"""The synthetic world: scenes from a seed, a physically based renderer, captions and referring expressions."""
