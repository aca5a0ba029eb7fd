"""Grade what students hand in: each blank of an assignment by itself, by what it does.

python grade.py hw2.zip                                # one submission, a folder or a zip
python grade.py submissions/ --csv grades.csv          # a class: a folder of folders and zips
python grade.py submissions/ --out graded --lang zh    # a page and Gradescope's results.json each

Submissions run within bounds; docs/course.md says which, and what is not protected against.
"""

import os
from pathlib import Path

from course import ASSIGNMENTS, LANGUAGES
from lab.console import run
from lab.flags import Parser, positive_int


def main() -> None:
    parser = Parser(__doc__)
    about = "submissions, each a folder or a zip, or folders of such"
    parser.add_argument("paths", nargs="+", type=Path, metavar="FOLDER|ZIP", help=about)
    about = "default: the one whose files are there"
    parser.add_argument("--assignment", choices=tuple(ASSIGNMENTS), help=about)
    parser.add_argument("--csv", type=Path, help="table to write, a row a submission")
    about = "folder to write, in it a folder a submission: results.json, page.md, page.html"
    parser.add_argument("--out", type=Path, help=about)
    parser.add_argument("--lang", choices=LANGUAGES, default="en", help="of what is said")
    about = "submissions at a time (default: one a core)"
    parser.add_argument("--jobs", type=positive_int, default=os.cpu_count() or 1, help=about)
    flags = parser.parse_args()

    from course import marking

    marking.mark(
        flags.paths, flags.assignment, flags.lang, flags.jobs, table=flags.csv, out=flags.out
    )


if __name__ == "__main__":
    run(main)
