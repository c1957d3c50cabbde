"""Figures as SVG text and numbers with their units: one way to draw each thing, for report and console."""
