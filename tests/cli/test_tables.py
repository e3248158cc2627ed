"""Tables on the terminal."""

from rich.console import Console

from curvscope.cli._tables import as_rich
from curvscope.report import Table


def test_nothing_is_cut_off_where_the_terminal_is_narrow():
    words = [f"word{i}" for i in range(60)]
    table = Table(("claim", "measured", "holds"), (((" ".join(words[:30])), " ".join(words[30:]), "does not hold"),))
    console = Console(width=50)
    with console.capture() as shown:
        console.print(as_rich(table))
    text = " ".join(shown.get().split())
    assert all(word in text for word in [*words, "holds", "not", "hold"])
    assert "…" not in text
