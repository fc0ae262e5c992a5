"""Wires the stages together: commands, recipes and the demo."""
