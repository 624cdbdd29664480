"""What was found about derivation files, for a terminal and for a program.

A report is the dictionary that derivations.run_file returns.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minigpt.verify.claims import Row, Verdict
from minigpt.verify.judge import verdict_table

WORDS = {
    "holds": "holds", "wrong": "does not hold", "not written": "not written yet",
    "error": "fails", "not reached": "not reached",
}  # fmt: skip


def verdict_of(claim: dict[str, Any]) -> Verdict:
    """The Verdict that a claim's record was made of."""
    rows = tuple(Row(**row | {"index": tuple(row["index"])}) for row in claim["rows"])
    return Verdict(claim["name"], claim["kind"], rows, tuple(claim["notes"]))


def wrong_arguments(claim: dict[str, Any]) -> list[str]:
    """The arguments with a row that does not hold."""
    return list(dict.fromkeys(row.argument for row in verdict_of(claim).rows
                              if not row.error <= row.tolerance))  # fmt: skip


def summary(report: dict[str, Any]) -> str:
    """How many derivations of a file hold, and how many do what else."""
    counts = Counter(claim["status"] for claim in report["claims"])
    n = len(report["claims"])
    several = {"holds": "hold", "does not hold": "do not hold", "fails": "fail"}
    parts = [f"{counts[status]} {several.get(words, words) if counts[status] > 1 else words}"
             for status, words in WORDS.items() if counts[status]]  # fmt: skip
    return f"{n} derivation{'s' * (n != 1)}: {', '.join(parts)}"


# --- for a terminal ---------------------------------------------------------------------------


def as_text(report: dict[str, Any], seed: int = 0) -> str:
    """Each derivation's table, what is wrong with it, and a last line for the file."""
    parts = ["\n".join(_claim_text(claim, seed)) for claim in report["claims"]]
    if report["printed"]:
        parts.insert(0, "printed while the file was read:\n" + _indented(report["printed"]))
    parts += [f"note: {note}" for note in report["notes"]]
    if report["claims"]:
        parts.append(f"{report['file']}: {summary(report)}")
    return "\n\n".join(parts)


def _claim_text(claim: dict[str, Any], seed: int) -> Iterator[str]:
    if claim["rows"]:
        yield verdict_table(verdict_of(claim))
    elif claim["status"] in ("not written", "not reached"):
        yield f"{claim['name']} ({claim['kind']}): {WORDS[claim['status']]}"
    else:
        yield f"{claim['name']} ({claim['kind']}) fails: {claim['error']}"
        yield from (f"note: {note}" for note in claim["notes"])
    if claim["diagnosis"]:
        yield from diagnosis_lines(claim, seed)
    if claim["printed"]:
        yield "printed meanwhile:\n" + _indented(claim["printed"])


def diagnosis_lines(claim: dict[str, Any], seed: int) -> Iterator[str]:
    """What is wrong, where it is derived, and the right values of a draw."""
    found = claim["diagnosis"]
    yield f"what is wrong: {found['words']}"
    if found["chapter"]:
        yield f"derived in: chapters/{found['chapter']}"
    names = wrong_arguments(claim) or list(found["corrected"])
    for name in names:
        if name in found["corrected"]:
            values = np.array2string(np.array(found["corrected"][name]), precision=5,
                                     threshold=30, edgeitems=2, suppress_small=True)  # fmt: skip
            yield f"right values for {name}, in a draw with seed {seed}:\n{_indented(values)}"


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


# --- for a program ----------------------------------------------------------------------------


def as_json(reports: Sequence[dict[str, Any]], **head: Any) -> str:
    """One JSON document. What is not finite is a string, "nan", "inf" or "-inf": JSON has none."""
    files = [
        report | {"claims": [_without_details(claim) for claim in report["claims"]]}
        for report in reports
    ]
    return json.dumps(_finite(head | {"files": files}), indent=2, allow_nan=False)


def _without_details(claim: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in claim.items() if key != "details"}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
