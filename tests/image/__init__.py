"""The image built, run, probed and stopped by a real engine: `make image-check`."""
