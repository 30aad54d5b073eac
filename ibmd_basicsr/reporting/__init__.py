"""Comparisons of restorers: their rows, runs and quality, a resumable store of results, tables, pictures, the page for browsers."""
