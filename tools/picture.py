"""python -m tools.picture: draws both architectures, docs/architectures.svg and its dark twin."""

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
WIDTH, HEIGHT = 960, 336
THEMES = {
    "architectures.svg": {"paper": "#ffffff", "ink": "#1c2024", "soft": "#5d646c", "edge": "#8a9097", "box": "#f1f2f0",
                          "code": "#2456c8", "on_code": "#ffffff", "deploy": "#b45309"},
    "architectures-dark.svg": {"paper": "#0d1117", "ink": "#e8eaec", "soft": "#a0a7af", "edge": "#6d757e",
                               "box": "#1c2128", "code": "#8fb0ff", "on_code": "#0e1a36", "deploy": "#eab561"},
}  # fmt: skip
ROWS = (86, 156, 226)  # of three boxes, one below the other
STYLE = """
  text {{ font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: {ink}; text-anchor: middle }}
  .title {{ font-size: 17px; font-weight: 650; text-anchor: start }} .note {{ font-size: 12px; fill: {soft} }}
  .box {{ fill: {box}; stroke: {edge} }} .code {{ fill: {code} }} .on-code, .on-code-note {{ fill: {on_code} }}
  .on-code-note {{ font-size: 12px }} .line {{ stroke: {edge}; stroke-width: 1.5; fill: none; marker-end: url(#tip) }}
  .deploy {{ fill: none; stroke: {deploy}; stroke-width: 1.5; stroke-dasharray: 6 4 }}
  .deploy-text {{ fill: {deploy}; font-size: 12px }}
"""


def box(x: int, y: int, width: int, height: int, title: str, note: str = "", *, is_code: bool = False) -> str:
    """Return a box with a title, and a line below it. is_code: whether the user's code runs in it."""
    middle, kind, text = x + width // 2, "box code" if is_code else "box", "on-code" if is_code else ""
    lines = [f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{height}" rx="8"/>']
    top = y + height // 2 + (-3 if note else 5)
    lines.append(f'<text class="{text}" x="{middle}" y="{top}">{title}</text>')
    if note:
        lines.append(f'<text class="{text or ""}{"-" if text else ""}note" x="{middle}" y="{top + 17}">{note}</text>')
    return "\n".join(lines)


def line(x1: int, y1: int, x2: int, y2: int) -> str:
    """Return a line with a tip at both ends."""
    return f'<path class="line" marker-start="url(#tip)" d="M{x1},{y1} L{x2},{y2}"/>'


def deploy(x: int, y: int, width: int, height: int) -> str:
    """Return the frame around what a deploy replaces."""
    return (
        f'<rect class="deploy" x="{x}" y="{y}" width="{width}" height="{height}" rx="12"/>\n'
        f'<text class="deploy-text" x="{x + width // 2}" y="{y + height + 18}">a deploy replaces this</text>'
    )


def split() -> list[str]:
    """Return the left half."""
    shapes = ['<text class="title" x="20" y="36">split</text>']
    shapes += (box(20, y, 84, 46, "client") for y in ROWS)
    shapes += (box(160, y, 124, 60, "interface", "holds connections") for y in (104, 194))
    shapes.append(box(340, 134, 92, 90, "Redis", "Streams"))
    shapes += (box(490, y, 104, 46, "worker", "your code", is_code=True) for y in ROWS)
    ends = (133, 133, 223)
    shapes += (line(110, y + 23, 154, end) for y, end in zip(ROWS, ends, strict=True))
    shapes += (line(290, y, 334, end) for y, end in ((134, 164), (224, 194)))
    shapes += (line(438, y, 484, end + 23) for y, end in zip((160, 179, 198), ROWS, strict=True))
    shapes.append(deploy(478, 70, 128, 218))
    return shapes


def in_process() -> list[str]:
    """Return the right half."""
    shapes = ['<text class="title" x="668" y="36">in-process</text>']
    shapes += (box(668, y, 84, 46, "client") for y in ROWS)
    shapes += (box(812, y, 124, 80, "server", "connections", is_code=True) for y in (88, 190))
    shapes += (f'<text class="on-code-note" x="874" y="{y}">and your code</text>' for y in (158, 260))
    shapes += (line(758, y + 23, 806, end) for y, end in zip(ROWS, (120, 136, 230), strict=True))
    shapes.append(deploy(800, 70, 148, 218))
    return shapes


def drawing(colours: dict[str, str]) -> str:
    """Return both, in the colours of a theme."""
    shapes = "\n".join([*split(), *in_process()])
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"
  role="img" aria-labelledby="what">
<title id="what">Split: clients, interfaces, Redis, workers; a deploy replaces the workers. In-process: clients,
servers; a deploy replaces the servers, which hold the connections.</title>
<style>{STYLE.format(**colours)}</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="6" markerHeight="6" orient="auto-start-reverse">
<path d="M0,0 L8,4 L0,8 z" fill="{colours["edge"]}"/></marker></defs>
<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="{colours["paper"]}"/>
<path d="M634,24 V312" stroke="{colours["edge"]}" stroke-dasharray="1 5"/>
{shapes}
</svg>
"""


def main() -> None:
    for name, colours in THEMES.items():
        (DOCS / name).write_text(drawing(colours))


if __name__ == "__main__":
    main()
