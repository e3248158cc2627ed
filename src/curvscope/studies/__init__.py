"""Experiments: thin compositions of the library; configuration in, results and figures out."""
