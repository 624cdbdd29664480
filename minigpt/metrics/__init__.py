"""How good is it? Scores of models and of texts, with an interval for each mean.

How surprised is the model?   language (perplexity, bits per byte)
Are its answers right?        classes, edits
Can its probabilities be believed?   calibration
Is its text like a given one? bleu, rouge, chrf
Is its text new?              diversity (within itself), copying (beside the training text)
Is a difference more than chance?    intervals

All count on the CPU, in float64. A score is a share, 0 to 1, where its docstring names no unit.
"""

from minigpt.metrics.bleu import corpus_bleu, sentence_bleu
from minigpt.metrics.calibration import (
    Reliability,
    best_temperature,
    brier_score,
    calibration_error,
    nats_at_temperature,
    reliability,
    top_choice,
)
from minigpt.metrics.chrf import chrf
from minigpt.metrics.classes import (
    Counts,
    Score,
    Scores,
    accuracy,
    average_scores,
    class_scores,
    confusion_matrix,
    count_classes,
    count_tags,
    f_measure,
)
from minigpt.metrics.copying import Copy, copied_share, longest_copy
from minigpt.metrics.diversity import distinct_n, repeated_suffix, repetition_rate
from minigpt.metrics.edits import edit_distance, exact_match, word_error_rate
from minigpt.metrics.intervals import (
    Interval,
    bootstrap_difference,
    bootstrap_mean,
    student_mean,
    student_quantile,
)
from minigpt.metrics.language import (
    bits_per_byte,
    bits_per_character,
    perplexity,
    perplexity_by_position,
)
from minigpt.metrics.rouge import rouge_l, rouge_n

__all__ = [
    "Copy",
    "Counts",
    "Interval",
    "Reliability",
    "Score",
    "Scores",
    "accuracy",
    "average_scores",
    "best_temperature",
    "bits_per_byte",
    "bits_per_character",
    "bootstrap_difference",
    "bootstrap_mean",
    "brier_score",
    "calibration_error",
    "chrf",
    "class_scores",
    "confusion_matrix",
    "copied_share",
    "corpus_bleu",
    "count_classes",
    "count_tags",
    "distinct_n",
    "edit_distance",
    "exact_match",
    "f_measure",
    "longest_copy",
    "nats_at_temperature",
    "perplexity",
    "perplexity_by_position",
    "reliability",
    "repeated_suffix",
    "repetition_rate",
    "rouge_l",
    "rouge_n",
    "sentence_bleu",
    "student_mean",
    "student_quantile",
    "top_choice",
    "word_error_rate",
]
