"""The curves of trainings: of one, and of several in one picture."""

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, SymmetricalLogLocator

from lab.drawing import plain
from lab.pictures import shorten


def draw_curves(
    history: Sequence[dict], ranks_by: str = "accuracy", best: int | None = None
) -> Figure:
    """Draw the losses, and the figure that ranks epochs, of training and of validation.

    Args:
        best: the epoch to mark as the best.
        history: a row an epoch: `loss`, and where they were measured `val_loss`, the ranking
            figure, and `val_` with its name.
        ranks_by: name of that figure; drawn in % where it is a share.
    """
    figure, loss_axis = plt.subplots(figsize=(6.8, 4.6), layout="constrained")
    lines = _plot_both(loss_axis, history, "loss", "C0")
    loss_axis.set(xlabel="epoch", ylabel="loss", ylim=(min(0, loss_axis.get_ylim()[0]), None))
    loss_axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    loss_axis.grid(alpha=0.3)
    name, unit, scale = _how_shown([history], ranks_by)
    ranking = _plot_both(axis := loss_axis.twinx(), history, ranks_by, "C2", scale)
    names = {key: None for row in history for key in row if key.startswith("also_")}
    for index, key in enumerate(key for key in names if key.endswith(f"_{ranks_by}")):
        own = {"color": f"C{3 + index % 7}", "markersize": 4, "label": plain(key.replace("_", " "))}
        ranking += axis.plot(*_curve(history, key, scale), "^:", **own)
    if ranking:
        axis.set_ylabel(f"{name} ({unit})" if unit else name)
    else:
        axis.remove()
    if (value := _at(history, f"val_{ranks_by}", best, scale)) is not None:
        axis.plot(best, value, "*", color="C2", markersize=12, clip_on=False)
        text = f"{value:.2f} %" if unit else f"{value:.4g}"
        loss_axis.set_title(f"best epoch (\N{BLACK STAR}) {best}: validation {name} {text}")
    figure.legend(handles=lines + ranking, loc="outside lower center", ncols=2)
    return figure


def draw_comparison(
    histories: dict[str, Sequence[dict]],
    ranks_by: str = "accuracy",
    bests: Mapping[str, int | None] | None = None,
) -> Figure:
    """Draw the losses of runs, and their validation by the figure that ranks epochs, a colour each.

    Without any validation the losses stand alone. A share has the logarithm of what it lacks for
    its axis: 98 and 99 % are as far apart as 80 and 90.

    Arguments as of `draw_curves`, of each run by its name; the best epochs are larger marks.
    """
    name, unit, scale = _how_shown(histories.values(), ranks_by)
    curves = [_curve(history, f"val_{ranks_by}", scale) for history in histories.values()]
    measured = any(epochs for epochs, _ in curves)
    size = (11 if measured else 6.8, 4.4)
    figure, axes = plt.subplots(1, 1 + measured, figsize=size, layout="constrained", squeeze=False)
    loss_axis, axis = axes[0, 0], axes[0, -1]
    lines, losses, shown = [], {"loss": [], "val_loss": []}, []
    for index, (run, history) in enumerate(histories.items()):
        style = {"color": f"C{index % 10}", "marker": "osv^D"[index % 5], "markersize": 4}
        for key, line in (("loss", "-"), ("val_loss", ":")):
            own = _curve(history, key)
            lines += loss_axis.plot(*own, line, **style)
            losses[key] += own[1]
        if measured:
            epochs, values = curves[index]
            values = [100 - value for value in values] if unit else values
            # Points at the edge are not cut; but without a point, the layout takes it for endless.
            style["clip_on"] = not np.isfinite(values).any()
            axis.plot(epochs, values, **style)
            best = (bests or {}).get(run)
            if best in epochs:
                axis.plot(best, values[epochs.index(best)], **style | {"markersize": 9})
            shown += values
    if min(sum(losses.values(), []), default=1.0) > 0:
        loss_axis.set_yscale("log")
        loss_axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        loss_axis.yaxis.set_major_formatter("{x:g}")
    loss_axis.set_ylabel("cross-entropy loss" if ranks_by == "accuracy" else "loss")
    if losses["val_loss"]:
        kinds = [plt.Line2D([], [], color="black", linestyle=style) for style in "-:"]
        loss_axis.legend(kinds, ["training", "validation"])
    if measured:
        if unit:
            _scale_by_lack(axis, shown)
        axis.set_ylabel(f"validation {name} ({unit})" if unit else f"validation {name}")
    for each in axes[0]:
        each.set_xlabel("epoch")
        each.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        each.minorticks_off()
        each.grid(alpha=0.3)
    names = [plain(shorten(name, 40)) for name in histories]
    figure.legend(lines[::2], names, loc="outside lower center", ncols=min(len(names), 5))
    return figure


def _scale_by_lack(axis: Axes, lacks: Sequence[float]) -> None:
    """Have an axis of what values lack to 100 % show the values, spread by its logarithm.

    0 has no logarithm: from the smallest lack that there is, the axis goes on linearly to it. So it
    is throughout where no lack is twice another one: a logarithm would have a tick there or none.
    """
    lacks = [lack for lack in lacks if np.isfinite(lack)]
    smallest = min((lack for lack in lacks if lack > 0), default=1.0)
    if lacks and smallest == min(lacks) and max(lacks) < 2 * smallest:
        axis.invert_yaxis()
    else:
        axis.set_yscale("symlog", linthresh=smallest, linscale=0.4)
        ticks = SymmetricalLogLocator(base=10, linthresh=smallest, subs=(1, 2, 3, 5, 7))
        axis.yaxis.set_major_locator(ticks)
        axis.set_ylim(1.1 * max([smallest, *lacks]), min([0.9 * smallest, *lacks]))
    axis.yaxis.set_major_formatter(lambda lack, _: f"{100 - lack:g}" if lack <= 100 else "")


def _curve(history: Sequence[dict], key: str, scale: float = 1.0) -> tuple[list, list]:
    """Return the epochs that a figure was measured in, and its values."""
    rows = [row for row in history if row.get(key) is not None]
    return [row["epoch"] for row in rows], [scale * row[key] for row in rows]


def _at(history: Sequence[dict], key: str, epoch: int | None, scale: float) -> float | None:
    """Return a figure of an epoch; None where it was not measured in it."""
    return dict(zip(*_curve(history, key, scale), strict=True)).get(epoch)


def _plot_both(
    axis: Axes, history: Sequence[dict], key: str, colour: str, scale: float = 1.0
) -> list:
    """Plot a figure of training and, dashed, of validation; return the lines that there are."""
    lines = []
    for split, prefix, style in (("training", "", "o-"), ("validation", "val_", "s--")):
        epochs, values = _curve(history, prefix + key, scale)
        if epochs:
            label = f"{split} {key.replace('_', ' ')}"
            lines += axis.plot(epochs, values, style, color=colour, markersize=4, label=label)
    return lines


def _how_shown(histories: Iterable[Sequence[dict]], key: str) -> tuple[str, str, float]:
    """Return what to call a figure, its unit, and the factor to it: a share is shown in %."""
    values = [
        value for history in histories for each in (key, f"val_{key}")
        for value in _curve(history, each)[1]
    ]  # fmt: skip
    share = all(0 <= value <= 1 for value in values if np.isfinite(value))
    return key.replace("_", " "), "%" if share else "", 100.0 if share else 1.0
