"""What is wrong with a derivation that does not hold? Hypotheses, confirmed on fresh inputs.

A mistake is named only if undoing it leaves no error, on several draws of other sizes and values.
Otherwise the answer is that no pattern was found: a guess would cost more than it helps.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigpt.verify import patterns, probes, terms
from minigpt.verify.claims import Claim, Diagnosis, Verdict
from minigpt.verify.patterns import EXACT, Bench, Guess
from minigpt.verify.trials import ENTRIES, Question, Trial, as_question, loosened, measure
from minigpt.witness import spread

WRONG = 1e-7  # an error from which a gradient counts as wrong

# The order is from the most specific to the least: the first that fits is the answer.
ORDER = (patterns.factor, patterns.cotangent_ignored, patterns.shape, patterns.repeats,
         probes.wrong_argument, terms.known_forms, probes.wrong_sum, probes.turned, terms.branches,
         terms.missing_factor, probes.wrong_side, terms.inner_derivative, terms.missing_term,
         terms.missing_path, probes.special_arrays, probes.gain, terms.row_terms,
         probes.small_variance, probes.special_values)  # fmt: skip

CHAPTERS = {
    "missing row sum": "03_softmax_cross_entropy",
    "diagonal only": "03_softmax_cross_entropy",
    "missing 1/sqrt(d)": "07_scaled_dot_product_attention",
    "1/sqrt(d) twice": "07_scaled_dot_product_attention",
    "mask after softmax": "07_scaled_dot_product_attention",
    "missing mean term": "11_layer_norm",
    "missing projection term": "11_layer_norm",
    "missing mean and projection terms": "11_layer_norm",
    "right only at gain = 1": "11_layer_norm",
    "eps in the wrong place": "11_layer_norm",
}
GENERAL = "00_gradient_checks"

ADVICE = {
    "sign": "Follow the minus through the derivation.",
    "missing broadcast sum": "An input that was repeated collects g from every copy: sum them.",
    "assigned instead of accumulated": "Use np.add.at or a one-hot product, not dw[i] = g.",
    "cotangent ignored": "A VJP is g times the Jacobian: multiply g in.",
    "right only for ones": "Test with a random cotangent; ones are blind to this.",
    "eps in the wrong place": "Differentiate the eps of the forward pass where it stands.",
    "mask after softmax": "The mask goes on the scores, before the softmax.",
    "zero": "It may be right for a cotangent of ones alone, or was never filled in.",
    "wrong argument": "Compare the order of the returned gradients with that of the arguments.",
}


@dataclass(frozen=True)
class Finding:
    """A confirmed guess. trials: on how many fresh inputs."""

    guess: Guess
    residual: float
    trials: int


def diagnose(claim: Claim, verdict: Verdict | None = None, *, seed: int = 0) -> Diagnosis:
    """Say how a claim is wrong: the pattern, the evidence, and the right values.

    claim.said is compared with measured gradients on fresh inputs: other sizes, cotangents, values.
    verdict: what judge said, if it was asked; a claim that holds has no pattern.
    Returns: a Diagnosis whose pattern is "" if no known mistake explains every wrong gradient.
    """
    if claim.kind in ("optimum", "bound") or (verdict is not None and verdict.holds):
        return Diagnosis("", "no pattern found", 0.0)
    bench = Bench(as_question(loosened(claim, seed)), seed)
    wrong = [k for k in range(len(bench.question.of)) if _worst(bench.trials, k) > WRONG]
    corrected = _corrected(as_question(claim), seed)
    if not wrong:
        return Diagnosis("", "no pattern found: on fresh inputs it agrees with what is measured",
                         0.0, corrected)  # fmt: skip
    findings = {k: _explain(bench, k) for k in wrong}
    return _diagnosis(bench, findings, corrected)


def _worst(draws: list[Trial], k: int) -> float:
    return max(t.error(k) for t in draws)


def _explain(bench: Bench, k: int) -> Finding | None:
    """The first guess that every trial confirms."""
    for guess in itertools.chain.from_iterable(guesses(bench, k) for guesses in ORDER):
        left, counted = 0.0, 0
        for trial in bench.trials:
            gap = _gap(guess, trial)
            if math.isnan(gap):
                continue
            left, counted = max(left, gap), counted + 1
            if left > EXACT or left > trial.error(k) / 50 > WRONG / 50:
                break
        else:
            if counted >= 2:
                return Finding(guess, left, counted)
    return None


def _gap(guess: Guess, trial: Trial) -> float:
    """What a guess leaves; infinite where it cannot be tried, as on shapes that f does not take."""
    try:
        with np.errstate(all="ignore"):
            return guess.gap(trial)
    except (ValueError, np.linalg.LinAlgError):
        return math.inf


def _diagnosis(bench: Bench, findings: dict[int, Finding | None], corrected: Any) -> Diagnosis:
    names = [bench.names[i] for i in bench.question.of]
    found = {names[k]: f for k, f in findings.items() if f is not None}
    sentences = list(_sentences(found))
    unknown = [names[k] for k, f in findings.items() if f is None]
    if unknown:
        sentences.insert(0, f"no pattern found for {', '.join(unknown)}: no known mistake, undone "
                         "alone, makes it right.")  # fmt: skip
        left = max(_worst(bench.trials, k) for k in findings)
        residual = left if math.isfinite(left) else 1.0  # 1: there was nothing to compare
        return Diagnosis("", " ".join(sentences), residual, corrected, GENERAL)
    labels = list(dict.fromkeys(f.guess.pattern for f in found.values()))
    first = next(iter(found.values())).guess
    chapter = first.chapter or CHAPTERS.get(labels[0], GENERAL)
    residual = max(f.residual for f in found.values())
    return Diagnosis(" and ".join(labels), " ".join(sentences), residual, corrected, chapter)


def _sentences(found: dict[str, Finding]) -> Iterator[str]:
    """What is wrong and how well that fits, once for arguments with the same explanation."""
    told: dict[tuple[str, str], list[str]] = {}
    for name, f in found.items():
        told.setdefault((f.guess.pattern, f.guess.what), []).append(name)
    for (pattern, what), names in told.items():
        f = found[names[0]]
        where = f"{pattern} (in the gradient of {', '.join(names)}): {what}."
        fit = f"Undone, the error is {f.residual:.0e} on {f.trials} fresh inputs."
        yield " ".join([where, fit, ADVICE.get(pattern, "")]).strip()


def _corrected(question: Question, seed: int) -> dict[str, np.ndarray]:
    """The right values for judge's first draw, by argument; NaN for what is too much to measure.

    For a VJP that is the gradient with judge's cotangent, for a Jacobian or Hessian all of it.
    """
    claim, f, rng = question.claim, question.f, np.random.default_rng(seed)
    names, args = list(claim.inputs), claim.draw(rng)
    out = f(*args)
    if claim.kind == "identity":
        return {"value": out}
    if claim.kind in ("vjp", "gradient"):
        g = np.ones(out.shape) if claim.kind == "gradient" else spread(rng, out.shape)
        return {names[i]: measure(f, args, i, g) for i in question.of}
    i = question.of[0]
    if out.size * args[i].size > ENTRIES:
        return {}
    units = np.eye(out.size).reshape(-1, *out.shape)
    rows = [measure(f, args, i, g) for g in units]
    return {names[i]: np.stack(rows).reshape(out.shape + args[i].shape)}
