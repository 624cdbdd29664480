"""Other architectures, made of the same parts as the GPT of model.py."""
