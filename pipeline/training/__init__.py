"""Training of static_vit for all resolutions together, from random weights to a checkpoint."""
