"""What GPT replaced: earlier models on the same data, so that a loss has something to beat.

One model a file, in the order of history. None of them is used by the GPT itself.
"""
