"""Test a trained network on the test split, or on pictures of your own.

python test.py --ckpt_path checkpoints/default --epoch 10
python test.py --epoch best --save             # and every image, sorted by right and wrong
python test.py --data_root FOLDER              # on other pictures of the same classes
python test.py --image photo.jpg FOLDER        # what it makes of your own
python test.py --ckpt_path checkpoints/detection --read checkpoints/default  # signs found, read
"""

from lab.console import run
from lab.flags import Parser, add_flags
from tasks import TestFlags, read_run


def main() -> None:
    parser = Parser(__doc__)
    add_flags(parser, TestFlags)
    flags = read_run(parser, TestFlags)

    from lab.drawing import show_figures
    from tasks.testing import test

    test(flags)
    if not flags.no_show:
        show_figures()


if __name__ == "__main__":
    run(main)
