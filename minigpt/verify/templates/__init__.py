"""Starter files for `python -m minigpt verify --template NAME`."""
