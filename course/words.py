"""What is said of an answer: one line, in each language."""

from typing import Any

import torch
from torch import Tensor

from course.cutting import Text

Words = dict[str, str]  # by language
LONGEST = 300  # letters of what a submission may have us say


def shorten(text: str) -> str:
    text = " ".join("".join(one if one.isprintable() else " " for one in str(text)).split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."


def say_value(label: str, value: Any, expected: Any) -> Words:
    """Say how a value differs from the expected one."""
    if isinstance(value, Tensor) and isinstance(expected, Tensor):
        if value.shape != expected.shape:
            got, wanted = tuple(value.shape), tuple(expected.shape)
            return {"en": f"`{label}` has shape {got}; expected {wanted}",
                    "zh": f"`{label}` 的形状为 {got}，应为 {wanted}"}  # fmt: skip
        if not torch.isfinite(value).all():
            return {"en": f"`{label}` is not finite", "zh": f"`{label}` 含有非有限值"}
        off = f"{float((value.double() - expected.double()).abs().max()):.2g}"
        return {"en": f"`{label}` is off by {off}", "zh": f"`{label}` 与正确值相差 {off}"}
    got, wanted = (
        f"a tensor of shape {tuple(one.shape)}" if isinstance(one, Tensor) else shorten(one)
        for one in (value, expected)
    )
    return {"en": f"`{label}`: {got}; expected {wanted}", "zh": f"`{label}`：{got}，应为 {wanted}"}


def say_end(end: dict[str, Any], lines: Text, file: str) -> Words:
    """Say how code ended that should have gone on."""
    message = shorten(end.get("message", ""))
    match end["end"]:
        case "time":
            return {"en": "does not come to an end in time: an endless loop?",
                    "zh": "未能在限定时间内结束：是否有死循环？"}  # fmt: skip
        case "memory":
            return {"en": "asks for more memory than 3 GB", "zh": "申请的内存超过 3 GB"}
        case "exit":
            return {"en": f"ends the process (exit code {message}) instead of returning",
                    "zh": f"直接结束了进程（退出码 {message}），而没有返回"}  # fmt: skip
        case "killed":
            return {"en": f"its process was ended by {message}",
                    "zh": f"进程被 {message} 终止"}  # fmt: skip
        case "done":
            return {"en": "answers otherwise than expected", "zh": "结果与预期不符"}
    said, number, code = f"{end['type']}: {message}" if message else end["type"], 0, ""
    if end.get("file") == file and 0 < end["line"] <= len(lines):
        number, code = lines[end["line"] - 1].number, shorten(lines[end["line"] - 1].text.strip())
    elif end.get("file"):
        file, number = end["file"], end["line"]
    else:
        return {"en": said, "zh": said}
    at = f"`{code}`" if code else ""
    line = {"en": f", line {number}", "zh": f" 第 {number} 行"} if number else {"en": "", "zh": ""}
    return {"en": f"{said} ({file}{line['en']}{': ' if at else ''}{at})",
            "zh": f"{said}（{file}{line['zh']}{'：' if at else ''}{at}）"}  # fmt: skip
