"""The commands of `python -m minigpt`, one a file: what it does, and `add`, its options."""
