"""Is my derivation right, and if not, what is wrong with it?

To verify        derivations (the mark, the command), isolated (its process), templates/
Is it right?     claims, arguments, hearing, values -> judge
What is wrong?   trials, patterns, known, terms, probes -> diagnosis
To be read       report, page, pictures
"""

from minigpt.verify.derivations import Input, derivation

__all__ = ["Input", "derivation"]
