"""Malformed input of every kind, and a runner that looks at what each does to a process of its own."""
