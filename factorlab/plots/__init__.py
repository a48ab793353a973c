"""Figures: one module a subject; each prepares data, then draws."""
