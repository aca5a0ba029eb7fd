"""Write what a student gets of an assignment: programs with numbered blanks, data, a README.

python starter.py signs --out hw2                      # Traffic signs, in English
python starter.py signs --out hw2 --lang zh --images 20
python starter.py detection --out hw3 --images 0       # without data

The folder imports nothing of this project. The teacher's side of it is grade.py.
"""

from pathlib import Path

from course import ASSIGNMENTS, LANGUAGES
from lab.console import run
from lab.flags import Parser, natural


def main() -> None:
    parser = Parser(__doc__)
    parser.add_argument("assignment", choices=tuple(ASSIGNMENTS), help="what is handed out")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; new or empty")
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="of hints and README")
    about = (
        "training images of each class, or streets, to draw; 0 for no data (default: %(default)s)"
    )
    parser.add_argument("--images", type=natural, default=100, help=about)
    flags = parser.parse_args()

    from course import handout

    handout.write(ASSIGNMENTS[flags.assignment], flags.out, flags.lang, flags.images)


if __name__ == "__main__":
    run(main)
