"""The part of a page that a program writes: it stands between two marks."""

from pathlib import Path

END = "<!-- end of results -->"


def replace(page: Path, begin: str, text: str) -> None:
    """Put ``text`` between the mark ``begin`` and the mark ``END`` that follows it."""
    before, _, rest = page.read_text().partition(begin)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{begin}\n{text}\n{END}{after}")
