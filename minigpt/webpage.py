"""Web pages that stand alone: no script, no network, light or dark as the reader's system is."""

from collections.abc import Iterable, Sequence
from html import escape

STYLE = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d5dbe3; --page: #fff;
  --panel: #f4f6f9; --good: #00704f; --bad: #b3401a; --blue: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e9ef; --soft: #a3adba; --line: #3b4552;
  --page: #12161c; --panel: #1c232c; --good: #4cc79b; --bad: #ff9469; --blue: #63b4ea; } }
@media print { :root { color-scheme: light; } section { break-inside: avoid; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page);
  max-width: 62rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.5rem; }
h3 { font-size: 1.1rem; margin: 0; } h4 { font-size: 1rem; margin: 1.2rem 0 .2rem; }
section { border: 1px solid var(--line); border-radius: 8px; padding: 1rem 1.2rem;
  margin: 1.2rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .6rem 0; }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top; }
th { font-weight: 600; border-bottom: 1px solid var(--line); } .n { text-align: right; }
.scroll { overflow-x: auto; } .soft { color: var(--soft); font-size: .9rem; }
figure { margin: .4rem 0; max-width: 100%; } figcaption { color: var(--soft); font-size: .9rem; }
pre { background: var(--panel); padding: .6rem 1rem; overflow-x: auto; } a { color: var(--blue); }
svg { max-width: 100%; height: auto; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg text.small { font-size: 10px; }
""".strip()


def document(title: str, body: Iterable[str], style: str = "") -> str:
    """The page: body is HTML already, the title is not. style: rules beside STYLE."""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}\n{style}\n</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: str = "") -> str:
    """A table of cells that are HTML already. numbers: "n" where a column is aligned right."""
    kinds = [' class="n"' if mark == "n" else "" for mark in numbers.ljust(len(head))]
    lines = ["".join(f"<th{kind}>{cell}</th>" for cell, kind in zip(head, kinds, strict=True))]
    lines += ["".join(f"<td{kind}>{cell}</td>" for cell, kind in zip(row, kinds, strict=True))
              for row in rows]  # fmt: skip
    return ('<div class="scroll"><table>' + "".join(f"<tr>{line}</tr>" for line in lines)
            + "</table></div>")  # fmt: skip
