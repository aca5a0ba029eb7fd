"""What numbers carry: intervals of accuracies, and whether one network is better than another.

Accuracies have Wilson's interval, differences of accuracies on other images Newcombe's (1998,
method 10), two networks on the same images McNemar's exact test, several seeds of two kinds of run
Student's t on the pairs' differences. Each at 95 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

LEVEL = 0.95
Z = 1.959964  # of the normal distribution, for 95 %


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the interval of a share of `count` (Wilson 1927)."""
    spread = Z * Z / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(
    share: float, count: int, other_share: float, other_count: int
) -> tuple[float, float]:
    """Return the interval of `other_share - share`, of different images (Newcombe 1998)."""
    low, high = wilson(share, count)
    other_low, other_high = wilson(other_share, other_count)
    gap = other_share - share
    return (
        gap - math.hypot(other_share - other_low, high - share),
        gap + math.hypot(other_high - other_share, share - low),
    )


def mcnemar(gained: int, lost: int) -> float:
    """Return the probability of so uneven numbers, or worse, where chance alone divides them.

    Args:
        gained, lost: images that the one network alone, and the other alone, has read rightly.
    """
    count, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(count, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**count)


@dataclass(frozen=True)
class Verdict:
    """Whether one kind of run reads more test images than another.

    Attributes:
        outcome: 1 if more, -1 if fewer, 0 if the numbers cannot tell.
        before, after: accuracies; means where there are several seeds.
        evidence: `mcnemar`, `newcombe` or `seeds`.
        numbers: gained, lost and their probability; an interval's ends; or the ends and the number
            of seeds.
    """

    outcome: int
    before: float
    after: float
    evidence: str
    numbers: tuple[float, ...]


# Label and prediction of each image, of one network on the test split.
Predictions = Sequence[tuple[str, str]]


def compare(before: Sequence[Predictions], after: Sequence[Predictions]) -> Verdict:
    """Judge two kinds of run by what their networks, one a seed, have read.

    Args:
        before, after: the networks' predictions, by the same seeds in the same order.
    """
    accuracies, others = ([accuracy(seed) for seed in kind] for kind in (before, after))
    if len(before) > 1:
        low, high = seeds_interval([b - a for a, b in zip(accuracies, others, strict=True)])
        evidence, numbers = "seeds", (low, high, len(before))
        outcome = (low > 0) - (high < 0)
    elif [label for label, _ in before[0]] == [label for label, _ in after[0]]:
        pairs = [(a == t, b == t) for (t, a), (_, b) in zip(before[0], after[0], strict=True)]
        gained, lost = pairs.count((False, True)), pairs.count((True, False))
        probability = mcnemar(gained, lost)
        evidence, numbers = "mcnemar", (gained, lost, probability)
        outcome = (probability < 1 - LEVEL) * ((gained > lost) - (gained < lost))
    else:
        numbers = difference(accuracies[0], len(before[0]), others[0], len(after[0]))
        evidence, outcome = "newcombe", (numbers[0] > 0) - (numbers[1] < 0)
    return Verdict(outcome, mean(accuracies), mean(others), evidence, numbers)


def accuracy(predictions: Predictions) -> float:
    """Return the share of images that are read as what they are."""
    return sum(label == read for label, read in predictions) / len(predictions)


def seeds_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the interval of the mean over all seeds, from those that were tried."""
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


# ---------------------------------------------------------------- sentences


def percent(share: float, digits: int = 2) -> str:
    """Return a share as it is said."""
    return f"{100 * share:.{digits}f} %"


def points(share: float) -> str:
    """Return a difference of shares, with its sign."""
    return f"{100 * share:+.2f}"


def about_part(verdict: Verdict, part: str, language: str) -> str:
    """Return what a part (batch norm, dropout ...) brings, and what shows it."""
    before, after = percent(verdict.before), percent(verdict.after)
    if language == "zh":
        said = {
            1: f"**{part}有帮助**：测试准确率从 {before} 提高到 {after}。",
            -1: f"**{part}有害**：测试准确率从 {before} 降到 {after}。",
            0: f"**{part}：看不出差别**。测试准确率为 {before} 和 {after}，其差在偶然范围之内。",
        }
    else:
        said = {
            1: f"**{part} helps**: test accuracy rises from {before} to {after}.",
            -1: f"**{part} hurts**: test accuracy falls from {before} to {after}.",
            0: f"**{part}: no difference can be told**. Test accuracy is {before} and {after}, "
            "which chance alone may bring.",
        }
    return said[verdict.outcome] + _evidence(verdict, language)


def _evidence(verdict: Verdict, language: str) -> str:
    zh = language == "zh"
    if verdict.evidence == "mcnemar":
        gained, lost, p = verdict.numbers
        p = "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
        if zh:
            return (
                f"同一批测试图片中，只有用了它才读对的 {gained:,} 张，"
                f"只有不用它才读对的 {lost:,} 张（McNemar 检验，{p}）。"
            )
        return (
            f" Of the same images, {gained:,} are read rightly only with it and {lost:,} only "
            f"without it (McNemar's test, {p})."
        )
    low, high = points(verdict.numbers[0]), points(verdict.numbers[1])
    if verdict.evidence == "seeds":
        seeds = int(verdict.numbers[2])
        if zh:
            return f"{seeds} 个随机种子之差的均值，95 % 置信区间为 {low} 到 {high} 个百分点。"
        return f" Over {seeds} seeds the mean difference is within {low} and {high} points (95 %)."
    if zh:
        return f"两者的测试图片不同；差的 95 % 置信区间为 {low} 到 {high} 个百分点。"
    return (
        f" They were tested on different images; the difference is within {low} and {high} points "
        "(95 %)."
    )


def about_overfitting(
    name: str,
    training: float,
    training_count: int,
    validation: float,
    validation_count: int,
    language: str,
) -> str:
    """Return how much better a network reads the images that it learned from."""
    low, high = difference(validation, validation_count, training, training_count)
    shares = percent(training), percent(validation)
    within = points(low), points(high)
    if language == "zh":
        said = {
            1: "过拟合：训练图片比验证图片读得好",
            -1: "按上述统计方式，验证图片反而读得更好",
            0: "训练图片与验证图片看不出差别",
        }[(low > 0) - (high < 0)]
        return (
            f"`{name}`：{said}；{shares[0]} 对 {shares[1]}，差的 95 % 置信区间为 "
            f"{within[0]} 到 {within[1]} 个百分点。"
        )
    said = {
        1: "overfits: it reads its training images better than new ones",
        -1: "reads validation images better than training images, as those were counted",
        0: "reads training and validation images alike, as far as the numbers tell",
    }[(low > 0) - (high < 0)]
    return (
        f"`{name}` {said}: {shares[0]} against {shares[1]}, a difference within {within[0]} and "
        f"{within[1]} points (95 %)."
    )
