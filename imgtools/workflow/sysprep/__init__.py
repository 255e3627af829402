"""Sysprep: which operations there are, which were chosen, and how they run in one transaction."""
