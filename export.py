"""Write a trained network as a file that runs without this project: ONNX, or torch.export's.

python export.py --ckpt_path checkpoints/default                   # to checkpoints/default/export
python export.py --ckpt_path checkpoints/detection --half          # weights of 16 bits
python export.py --ckpt_path checkpoints/detection --format torch
python export.py --ckpt_path checkpoints/detection --image FOLDER  # checked on your own pictures

What comes before and after the network is in the file: pictures go in as bytes, (N, H, W, 3), and
answers come out. It is checked against PyTorch before it is called done.
"""

from lab.console import run
from lab.flags import Parser, add_flags
from tasks import ExportFlags, read_run


def main() -> None:
    parser = Parser(__doc__)
    add_flags(parser, ExportFlags)
    flags = read_run(parser, ExportFlags)

    from tasks.exporting import export

    export(flags)


if __name__ == "__main__":
    run(main)
