"""The command line, one file a sub-command."""

__all__: list[str] = []
