"""What the commands do, and the only place that prints. ``python -m ibmd_basicsr.NAME`` are thin modules above it."""
