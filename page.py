"""Write a trained network as a page: one file, with the network in it, that a browser opens.

python page.py --ckpt_path checkpoints/default              # to checkpoints/default/page.html
python page.py --ckpt_path checkpoints/bn checkpoints/stn   # side by side, in the first's folder
python page.py --ckpt_path checkpoints/detection --read checkpoints/default
python page.py --runtime onnxruntime-web-1.30.0.tgz         # without a connection: a file you have

The page runs from disk and from any host, and asks for nothing: pictures stay on the computer.
"""

from lab.console import run
from lab.flags import Parser, add_flags, read_flags
from tasks import PageFlags, default_runs


def main() -> None:
    parser = Parser(__doc__)
    add_flags(parser, PageFlags)
    flags = default_runs(read_flags(parser.parse_args(), PageFlags))

    from tasks.showing import write_page

    write_page(flags)


if __name__ == "__main__":
    run(main)
