"""Faults, injected on purpose: kills, power cuts, I/O errors, and what must hold after each of them."""
