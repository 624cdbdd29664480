"""What was found about derivation files, as a web page that stands alone: no script, no network."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np

from minigpt.verify.pictures import heat_map, relative_errors, v_curve
from minigpt.verify.report import WORDS, summary, verdict_of, wrong_arguments
from minigpt.webpage import document, table

STYLE = """
.holds { color: var(--good); font-weight: 600; } .wrong { color: var(--bad); font-weight: 600; }
th, td .holds, td .wrong { white-space: nowrap; }
.says { background: var(--panel); border-left: 4px solid var(--bad); padding: .6rem 1rem;
  margin: .8rem 0; overflow-wrap: anywhere; }
.pair { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start; }
svg .grid { stroke: var(--line); } svg .axis { stroke: var(--soft); }
svg .claim { stroke: var(--bad); fill: none; stroke-width: 2; } svg text.claim { stroke: none;
  fill: var(--bad); } svg .true { stroke: var(--blue); fill: none; stroke-width: 2; }
svg text.true { stroke: none; fill: var(--blue); } svg .none { fill: var(--panel);
  stroke: var(--line); }
""".strip()

HOW_TO_READ = """
<details><summary>How to read this page</summary>
<p>A derivation is compared with witnesses that know nothing of it: differences of the function's
values, the complex step where the function is analytic, the adjoint identity where it is linear.
The arguments are random and of several shapes, and the cotangent is random: with ones, a backward
pass of zeros passes for softmax. An error is a share of the largest entry; the tolerance says how
far the witness itself may be off. A derivation holds if every witness agrees.</p>
<p>The curve on the right is the error of plain central differences,
(f(x + hu) - f(x - hu)) / 2h, for steps h along one direction u. Against a right derivation it is a
V: for large h the error is truncation and falls with h², for small h it is rounding and grows with
1/h. (A linear function has nothing to truncate, and the left arm alone.) Against a wrong one it has
a floor: no step makes the difference go away.</p></details>
""".strip()


def as_page(reports: Sequence[dict[str, Any]], seed: int = 0) -> str:
    """The page for one file or several."""
    title = "Derivations of " + ", ".join(report["file"] for report in reports)
    body = [f"<h1>{escape(title)}</h1>", _overview(reports), HOW_TO_READ]
    for k, report in enumerate(reports):
        body += _file(report, k, seed)
    body.append(f'<p class="soft">Written by minigpt verify, with --seed {seed}.</p>')
    return document(title, body, STYLE)


def _badge(claim: dict[str, Any]) -> str:
    kind = "holds" if claim["status"] == "holds" else "wrong"
    return f'<span class="{kind}">{"✓" if kind == "holds" else "✗"} {WORDS[claim["status"]]}</span>'


def _overview(reports: Sequence[dict[str, Any]]) -> str:
    rows = []
    for k, report in enumerate(reports):
        for i, claim in enumerate(report["claims"]):
            worst = max((row["error"] for row in claim["rows"]), default=None)
            what = (claim["diagnosis"] or {}).get("pattern", "") or claim["error"]
            what = "" if claim["status"] == "not written" else what
            rows.append([f'<a href="#c{k}-{i}">{escape(claim["name"])}</a>',
                         escape(f"{claim['kind']} of {claim['of']}"), _badge(claim),
                         "" if worst is None else f"{worst:.1e}", escape(what)])  # fmt: skip
    head = ["derivation", "what", "result", "worst error", "what is wrong"]
    return table(head, rows, "   n") if rows else ""


def _file(report: dict[str, Any], k: int, seed: int) -> Iterator[str]:
    yield f"<h2>{escape(report['file'])}</h2>"
    if report["error"]:
        yield f'<div class="says">{escape(report["error"])}</div>'
    if report["claims"]:
        yield f"<p>{escape(summary(report))}.</p>"
    yield from _asides(report, "printed while the file was read")
    for i, claim in enumerate(report["claims"]):
        yield f'<section id="c{k}-{i}">' + "\n".join(_claim(claim, seed)) + "</section>"


def _asides(found: dict[str, Any], title: str) -> Iterator[str]:
    """Notes, and what was printed."""
    yield from (f'<p class="soft">Note: {escape(note)}</p>' for note in found["notes"])
    if found["printed"]:
        yield (f"<details><summary>{title}</summary><pre>{escape(found['printed'])}</pre>"
               "</details>")  # fmt: skip


def _claim(claim: dict[str, Any], seed: int) -> Iterator[str]:
    yield f"<h3>{escape(claim['name'])} {_badge(claim)}</h3>"
    where = f", {claim['where']}" if claim.get("where") else ""
    yield f'<div class="soft">{escape(claim["kind"] + " of " + claim["of"] + where)}</div>'
    if claim["error"] and claim["status"] != "not written":
        yield f'<div class="says">{escape(claim["error"])}</div>'
    if claim["diagnosis"]:
        yield _diagnosis(claim)
    if rows := verdict_of(claim).rows:
        cells = [[escape(r.argument), escape(r.witness),
                  f'<span class="{"holds" if r.error <= r.tolerance else "wrong"}">{r.error:.1e}'
                  "</span>", f"{r.tolerance:.0e}", str(list(r.index)) if r.index else "-",
                  f"{r.claimed:.6g}", f"{r.measured:.6g}"] for r in rows]  # fmt: skip
        head = ["argument", "witness", "error", "tolerance", "worst index", "claimed", "measured"]
        yield table(head, cells, "  nnnnn")
        whys = dict.fromkeys(f"{row.witness}: {row.why}" for row in rows)
        yield f'<p class="soft">Tolerances. {escape("; ".join(whys))}.</p>'
    yield from _asides(claim, "printed meanwhile")
    wrong = wrong_arguments(claim)
    for detail in claim.get("details", []):
        yield from _argument(detail, seed, detail["argument"] in wrong or not rows)


def _diagnosis(claim: dict[str, Any]) -> str:
    found = claim["diagnosis"]
    words = f"<strong>What is wrong.</strong> {escape(found['words'])}"
    if found["chapter"]:
        words += f" Derived in chapters/{escape(found['chapter'])}."
    return f'<div class="says">{words}</div>'


def _argument(detail: dict[str, Any], seed: int, wrong: bool) -> Iterator[str]:
    """One argument's gradient on one draw: the heat map, the V-curve, the worst entries."""
    name = escape(detail["argument"])
    title = f"The gradient of {name}" if "steps" in detail else "The value"
    yield f"<h4>{title}, on a draw with seed {seed}</h4>"
    pictures = []
    if "measured" in detail:
        claimed, measured = (np.array(detail[key], float) for key in ("claimed", "measured"))
        errors = relative_errors(claimed, measured)
        caption = "Error by index, as a share of the largest entry."
        caption += " Blank: not measured." * bool(np.isnan(errors).any())
        pictures.append(_figure(heat_map(claimed, measured, errors), caption))
    else:
        shape = escape(str(tuple(detail["shape"])))
        pictures.append(f'<p class="soft">{shape}: no map of an array so large, or of the wrong '
                        "shape; the table above names the worst entry.</p>")  # fmt: skip
    if "steps" in detail:
        lines = {"against the claim": detail["claim"]} if "claim" in detail else {}
        if wrong or not lines:
            lines["against what is measured"] = detail["true"]
        caption = "Error of central differences by step h, along one direction."
        pictures.append(_figure(v_curve(detail["steps"], lines), caption))
    yield f'<div class="pair">{"".join(pictures)}</div>'
    if "measured" in detail and wrong:
        order = np.argsort(-np.nan_to_num(errors, nan=-1, posinf=np.inf).reshape(-1))[:5]
        places = [np.unravel_index(i, errors.shape) for i in order]
        rows = [[str([int(i) for i in place]), f"{claimed[place]:.6g}", f"{measured[place]:.6g}",
                 f"{errors[place]:.1e}"] for place in places]  # fmt: skip
        yield "<h4>The worst entries</h4>" + table(
            ["index", "claimed", "measured", "error"], rows, " nnn"
        )


def _figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{caption}</figcaption></figure>"
