"""What `scripts/gpu-check` makes of the figures of the benches."""
