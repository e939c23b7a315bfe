"""The embedded default: a small data set, a small Stable Diffusion trained on it, and how both were made."""
