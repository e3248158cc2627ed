"""Harnesses: each module yields (name, held) for everything that it tries; see :func:`cases` of each."""
