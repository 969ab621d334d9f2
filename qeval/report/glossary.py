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
        ("Δ", _DIFFERENCE, compared),
        ("Interval", _INTERVAL, compared),
        ("Equivalent, measurable, worse, better, undecided", _words(context), compared),
        ("Proved", _PROVED, compared),
        ("Pass, fail, undecided", _VERDICTS, context.judged),
        ("Lost, gained, changed", _FLIPS, bool(context.explorer.counts)),
        ("Confidence and ECE", _CALIBRATION, bool(context.choices)),
        ("Noise floor", _NOISE, bool(context.noise.floor)),
        ("Spread over seeds", _SEEDS, bool(context.noise.seeds)),
        ("Kept, and kept above chance", _RECOVERY, compared),
        ("Two means of one group", _MEANS, any(column.row.level == "macro" for column in context.columns)),
        ("Δ pulled towards the mean", _SHRUNKEN, bool(context.subjects)),
        ("Texts", _TEXTS, any(" texts" in column.n for column in context.columns)),
        ("Perplexity", _PERPLEXITY, perplexed),
    ]


def _words(context: Context) -> str:
    """The five words, with the margin of this report."""
    within = context.evidence.margin.told()
    return (
        f"Not every change that can be measured matters. Here the margin is {within}. Equivalent: the "
        "whole interval lies within the margin. Measurable: it does too, but a loss or a gain is proved. "
        "Worse, better: the whole interval lies beyond the margin, and the loss or gain is proved. "
        "Undecided: more items are needed to tell, which is not the same as equivalent; where a loss or a "
        f"gain is proved and only its size is open, that is said. {NAMING}"
    )


NAMING = (
    "A verdict is about the average, and names a task only if that task's own verdict is graver. The gravest "
    "is worse; then undecided with a proved loss; then undecided with a measured loss beyond the margin, or "
    "one without bound. Of several such tasks it names the one whose loss is surest, of unproved ones the "
    "largest."
)
"""By what a variant is summed up (`compare.margin.telling`)."""
_PROVED = (
    "A loss or a gain is proved if it stands once all comparisons of the report are corrected for: a report "
    "in which nothing differs would prove anything at all at most one time in 20. An interval "
    "is of its own row alone, so one that lies wholly below 0 may prove "
    "nothing among many. A proof is about these items and this scoring: it takes no account of the noise of "
    "scoring itself."
)
_SCORE = (
    "The share of questions answered correctly, in percentage points. Some tasks give parts of a point "
    "for an answer. Higher is better; for perplexity, lower."
)
_DIFFERENCE = (
    "The variant's score minus the baseline's, in percentage points, on the same questions asked in the "
    "same words. Below 0, the variant is worse. For perplexity, the ratio is shown instead: above x1 is "
    "worse."
)
_INTERVAL = (
    "A test asks a sample of all the questions that could be asked; other questions would have given "
    "another Δ. The interval is the range of true values that agree with what was seen. Of 100 such 95% "
    "intervals, about 95 hold the true value. An interval that holds 0 is consistent with no change. That "
    "is not the same as no change: a wide interval means that too few questions were asked. Each interval "
    "is of its own row alone. Among many rows some lie wholly below 0 by luck, so the words below are "
    "corrected for all comparisons of the report, and a row can be undecided beside such an interval."
)
_VERDICTS = (
    "A rule allows a loss up to its limit. Pass: the whole interval lies above the limit, so a greater loss "
    "is ruled out. Fail: the whole interval lies below it. Undecided: the limit lies within the interval, "
    "and more items are needed. Only a pass is a pass. A rule looks at one side of its interval: at a "
    "confidence of 95% that is the lower or the upper end of the 90% interval, so its reason names a "
    "different interval from the one in the tables."
)
_FLIPS = (
    "Lost answers were right and became wrong; gained ones were wrong and became right; changed counts "
    "every answer that differs from before. A variant that loses 50 and gains 50 has the same score, but "
    "it is a different model on 100 questions. Where an item scores between 0 and 1, as in truthfulqa_mc2, "
    "no answer is right or wrong: nothing is lost, gained or changed, and the score's Δ alone tells."
)
_CALIBRATION = (
    "How sure a model is of its answer: the probability that it gives to this choice among all of them, "
    "from their log-probabilities as they are. The expected calibration error sorts items into ten bins "
    "by confidence (0 to 10%, 10 to 20%, and so on) and takes the mean over items of how far the share "
    "of right answers in a bin is from the bin's mean confidence (Guo et al. 2017). A model that is "
    "right as often as it is sure has an error of 0, apart from chance, which adds up to 0.4 times the "
    "square root of 10 / n: 4 points for n = 1000."
)
_NOISE = (
    "The baseline was scored twice, the second time by another path through the same code, in other "
    "batches and another order. What differs then is noise, not loss. A variant is within twice the noise "
    "floor if its changed answers and its Δ are at most twice the floor's; for Δ, the floor is taken to "
    "be at least what that many changed answers produce by chance. Another GPU or another version of a "
    "library changes numbers too; that was not tried. The floor decides no verdict: a "
    "loss may be proved and yet lie within it."
)
_SEEDS = (
    "Some schemes draw texts at random while they quantise. They were made several times, each time with "
    "a different draw. The spread between these is luck, so schemes that are closer together than that "
    "cannot be told apart."
)
_RECOVERY = (
    "The variant's score as a share of the baseline's. Guessing alone has a score: with four choices, 25 "
    "points. The share above chance leaves that part out, and is the stricter of the two."
)
_MEANS = (
    "A group such as MMLU has members of unequal size. The unweighted mean counts every subject the same, "
    "as public leaderboards do; with all items together every question counts the same. The two can be a "
    "point apart. The average over tasks takes the mean, as leaderboards do; the worst task and a rule for "
    "every task take all items, where a subject of few questions weighs no more than they do. A verdict "
    "that names a task names the one of the two on which a loss is surer."
)
_SHRUNKEN = (
    "Among 57 subjects of 100 questions each, some look terrible and some excellent by luck alone. So "
    "every Δ is also shown pulled towards the mean of all subjects, by as much as luck explains. What "
    "still stands out deserves a look."
)
_TEXTS = (
    "Questions about one text are answered well or badly together. So if items share a text, the texts "
    "count as independent, not the items: 204 questions about 66 texts tell less than 204 that stand "
    "alone. With fewer than 20 texts, too little is known about how texts differ."
)
_PERPLEXITY = (
    "How surprised the model is by a text, word by word: with a perplexity of 8 it is as unsure as if it "
    "chose among 8 equally likely words. A ratio of x1.02 to the baseline is 2% more."
)
