"""What this machine computes with, whether it works, and what to do where it does not.

Checks of a backend run in a process of their own: a backend is chosen when the package is imported,
and a broken installation may end the process that tries it.
"""
