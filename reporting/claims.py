"""What numbers carry: intervals of accuracies, and whether one network is better than another.

Accuracies have Wilson's interval, differences of accuracies on other images Newcombe's (1998,
method 10), two networks on the same images McNemar's exact test, several seeds of two kinds of run
Student's t on the pairs' differences. Each at 95 %.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.special import stdtrit

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

    They count the images that the one network alone, and the other alone, has read rightly.
    """
    count, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(count, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**count)


@dataclass(frozen=True)
class Verdict:
    """Whether one kind of run reads more test images than another.

    Its numbers are: of `mcnemar` gained, lost and their probability, of `newcombe` an interval's
    ends, of `seeds` the ends and the number of seeds.
    """

    outcome: int  # 1 if more, -1 if fewer, 0 if the numbers cannot tell
    before: float  # accuracy; the mean where there are several seeds
    after: float
    evidence: str  # `mcnemar`, `newcombe` or `seeds`
    numbers: tuple[float, ...]


# Label and prediction of each image, of one network on the test split.
Predictions = Sequence[tuple[str, str]]


def compare(before: Sequence[Predictions], after: Sequence[Predictions]) -> Verdict:
    """Judge two kinds of run by what their networks, one a seed, in the same order, have read."""
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
    half = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


# ---------------------------------------------------------------- sentences, in two languages

PART = {
    1: ("**{} helps**: test accuracy rises from {} to {}.",
        "**{}有帮助**：测试准确率从 {} 提高到 {}。"),
    -1: ("**{} hurts**: test accuracy falls from {} to {}.",
         "**{}有害**：测试准确率从 {} 降到 {}。"),
    0: ("**{}: no difference can be told**. Test accuracy is {} and {}, which chance alone may "
        "bring.",
        "**{}：看不出差别**。测试准确率为 {} 和 {}，其差在偶然范围之内。"),
}  # fmt: skip
EVIDENCE = {
    "mcnemar": (
        " Of the same images, {:,} are read rightly only with it and {:,} only without it "
        "(McNemar's test, {}).",
        "同一批测试图片中，只有用了它才读对的 {:,} 张，只有不用它才读对的 {:,} 张"
        "（McNemar 检验，{}）。",
    ),
    "seeds": (
        " Over {2} seeds the mean difference is within {0} and {1} points (95 %).",
        "{2} 个随机种子之差的均值，95 % 置信区间为 {0} 到 {1} 个百分点。",
    ),
    "newcombe": (
        " They were tested on different images; the difference is within {} and {} points (95 %).",
        "两者的测试图片不同；差的 95 % 置信区间为 {} 到 {} 个百分点。",
    ),
}
OVERFITTING = {
    1: ("overfits: it reads its training images better than new ones",
        "过拟合：训练图片比验证图片读得好"),
    -1: ("reads validation images better than training images, as those were counted",
         "按上述统计方式，验证图片反而读得更好"),
    0: ("reads training and validation images alike, as far as the numbers tell",
        "训练图片与验证图片看不出差别"),
}  # fmt: skip
SHARES = (
    "`{}` {}: {} against {}, a difference within {} and {} points (95 %).",
    "`{}`：{}；{} 对 {}，差的 95 % 置信区间为 {} 到 {} 个百分点。",
)
Words = Callable[[str, str], str]  # chooses between English and Chinese


def about_part(verdict: Verdict, part: str, words: Words) -> str:
    """Return what a part (batch norm, dropout ...) brings, and what shows it."""
    accuracies = percent(verdict.before), percent(verdict.after)
    said = words(*PART[verdict.outcome]).format(part, *accuracies)
    first, second, *others = verdict.numbers
    if verdict.evidence == "mcnemar":
        others = ["p < 0.001" if others[0] < 0.001 else f"p = {others[0]:.2g}"]
    else:
        first, second = points(first), points(second)
    return said + words(*EVIDENCE[verdict.evidence]).format(first, second, *others)


def about_overfitting(
    name: str, training: tuple[float, int], validation: tuple[float, int], words: Words
) -> str:
    """Return how much better a network reads the images that it learned from: shares, of counts."""
    low, high = difference(*validation, *training)
    said = words(*OVERFITTING[(low > 0) - (high < 0)])
    shares = percent(training[0]), percent(validation[0])
    return words(*SHARES).format(name, said, *shares, points(low), points(high))


def percent(share: float) -> str:
    """Return a share as it is said."""
    return f"{100 * share:.2f} %"


def from_to(low: float, high: float, digits: int = 2) -> str:
    """Return an interval of shares in per cent."""
    return f"{100 * low:.{digits}f} – {100 * high:.{digits}f}"


def points(share: float) -> str:
    """Return a difference of shares, with its sign."""
    return f"{100 * share:+.2f}"
