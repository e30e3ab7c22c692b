"""Tables of text, no wider than they may be."""

from collections.abc import Sequence
from typing import NamedTuple

GAP = "  "


class Column(NamedTuple):
    """heading: of one word or more. rank: 0 stays; of the others the highest goes first where there is no room."""

    heading: str
    rank: int = 0
    is_text: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[object]], width: int) -> list[str]:
    """Return the heading and a line for each row: columns that say nothing are left out, then those without room.

    Of columns that all stay, the end of what is too long is cut: the last one holds text.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    shown = [index for index in range(len(columns)) if any(row[index] for row in cells)]
    widths = {index: max(len(columns[index].heading), *(len(row[index]) for row in cells)) for index in shown}
    while sum(widths[index] + len(GAP) for index in shown) - len(GAP) > width:
        least = max(shown, key=lambda index: columns[index].rank)
        if not columns[least].rank:
            break
        shown.remove(least)
    lines = [
        GAP.join(
            row[index].ljust(widths[index]) if columns[index].is_text else row[index].rjust(widths[index])
            for index in shown
        ).rstrip()
        for row in [[column.heading for column in columns], *cells]
    ]
    return [line if len(line) <= width else line[: width - 1] + "…" for line in lines]
