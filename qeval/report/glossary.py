"""How to read a report, for a person who has never seen a confidence interval."""

from __future__ import annotations

from qeval.report.context import Context


def glossary(context: Context) -> tuple[tuple[str, str], ...]:
    """(term, explanation) pairs; only what the report at hand shows."""
    return tuple((term, text) for term, text, there in _terms(context) if there)


def _terms(context: Context) -> list[tuple[str, str, bool]]:
    compared = any(figure and figure.delta for line in context.lines for figure in line.figures)
    perplexed = any(column.is_perplexity for column in context.columns)
    return [
        ("Score", _SCORE, True),
        ("Δ, the difference", _DIFFERENCE, compared),
        ("Interval", _INTERVAL, compared),
        ("Equivalent, measurable, worse, better, undecided", _words(context), compared),
        ("Pass, fail, undecided", _VERDICTS, context.judged),
        ("Lost, gained, changed", _FLIPS, bool(context.explorer.counts)),
        ("Confidence and ECE", _CALIBRATION, bool(context.choices)),
        ("Noise floor", _NOISE, bool(context.noise.floor)),
        ("Spread over seeds", _SEEDS, bool(context.noise.seeds)),
        ("Kept, and kept above chance", _RECOVERY, compared),
        ("Two means of one group", _MEANS, any(column.row.level == "macro" for column in context.columns)),
        ("Shrunken differences", _SHRUNKEN, bool(context.subjects)),
        ("Texts", _TEXTS, any(" texts" in column.n for column in context.columns)),
        ("Perplexity", _PERPLEXITY, perplexed),
    ]


def _words(context: Context) -> str:
    """The five words, with the margin of this report."""
    within = context.evidence.margin.told()
    return (
        f"Not every difference that can be measured matters. Here a difference matters from {within}. "
        "Equivalent: the whole interval is smaller than that. Measurable: it is smaller too, but surely not "
        "zero. Worse, better: the whole interval is beyond it. Undecided: more items are needed to tell. "
        "Undecided is not the same as equivalent."
    )


_SCORE = (
    "The share of questions answered correctly, in percentage points. Some tasks give parts of a point for "
    "an answer. Higher is better; for perplexity, lower."
)
_DIFFERENCE = (
    "The variant's score less the baseline's, in points, on the very same questions asked in the very "
    "same words. Below zero, the variant is worse."
)
_INTERVAL = (
    "A test asks a sample of all the questions that could be asked; other questions would have given "
    "another difference. The interval is the range of true differences that agree with what was seen. "
    "With 95% intervals, such ranges hold the truth in 95 of 100 tests. If the range reaches across "
    "zero, the data are consistent with no difference. That is not the same as no difference: a wide "
    "range means that too few questions were asked."
)
_VERDICTS = (
    "A rule allows a certain loss. Pass: the whole interval lies above that loss, so a greater one is "
    "ruled out. Fail: the whole interval lies below it. Undecided: the interval holds the limit, and "
    "more items are needed. Only a pass is a pass."
)
_FLIPS = (
    "Lost answers were right and became wrong; gained ones were wrong and became right; changed counts "
    "every answer that differs from before. A variant that loses 50 and gains 50 has the same score, "
    "but it is another model on 100 questions."
)
_CALIBRATION = (
    "How sure a model is of its answer: the probability that it gives this choice among all, from their "
    "log-probabilities as they are. The expected calibration error sorts items into ten bins by confidence "
    "(0 to 10%, 10 to 20%, and so on) and takes the mean over items of how far the share of right answers in "
    "a bin lies from its mean confidence (Guo et al. 2017). A model that is right as often as it is sure has "
    "0, but for chance, which adds up to 0.4 times the square root of 10 / n: 4 points for n = 1000."
)
_NOISE = (
    "The baseline was scored twice: by another path through the same code, in other batches and another "
    "order. What differs then is no loss of anything. A variant is within twice the noise floor where "
    "its changed answers and its difference are at most twice those, the floor of a difference taken no "
    "smaller than that many changes make by chance. Another GPU or another version of a library moves "
    "numbers too, and was not tried. It decides no verdict."
)
_SEEDS = (
    "Some schemes draw texts at random while they quantise. They were made several times, each with "
    "a different draw; the spread between those is luck, and so is a choice between schemes closer than that."
)
_RECOVERY = (
    "The variant's score as a share of the baseline's. Guessing alone scores something: with four "
    "choices, 25 points. The share above chance leaves that part out, and is the stricter of the two."
)
_MEANS = (
    "A group such as MMLU has members of unequal size. The unweighted mean counts every subject the same,"
    " as public leaderboards do; with all items together every question counts the same. The two can "
    "differ by a point."
)
_SHRUNKEN = (
    "Among 57 subjects of 100 questions some look terrible and some splendid by luck alone. Shrinking "
    "pulls every difference towards the mean of all by as much as luck explains. What still stands out "
    "deserves a look."
)
_TEXTS = (
    "Questions under one text are answered well or badly together. So where items share texts, the texts are "
    "what counts as independent: 204 questions under 66 texts say less than 204 that stand alone. With fewer "
    "than 20 texts, nothing is known of how texts differ."
)
_PERPLEXITY = (
    "How surprised the model is by a text, word by word: with a perplexity of 8 it is as unsure as if it "
    "chose among 8 equally likely words. A ratio of x1.02 to the baseline is 2% more."
)
