"""Contexts: what a photo shows besides its subject, found by a captioner or by the diffusion model itself."""
