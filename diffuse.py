"""Paint pictures from words, or from a picture and words, by diffusion.

python diffuse.py --prompt "a roundabout sign at night"
python diffuse.py --prompt "a stop sign in snow" --num_images 8 --scheduler dpm --steps 15
python diffuse.py --prompt "a stop sign" --image photo.jpg --strength 0.75 --guidance_scale 7.5
python diffuse.py --prompt "a fantasy landscape" --model sd-legacy/stable-diffusion-v1-5

Without --model it is our own network that paints, of `python train.py --task diffusion`. Sources:
Rombach et al. 2022 (latent diffusion), Meng et al. 2022 (image to image).
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from lab.console import (
    LabError,
    Parser,
    UsageError,
    add_show_flag,
    closed_share,
    non_negative_float,
    positive_int,
    run,
    say,
    seed,
)

if TYPE_CHECKING:
    from PIL import Image

    from lab.runtime import Runtime

SCHEDULERS = ("ddim", "dpm", "euler", "ddpm")


def make_parser() -> ArgumentParser:
    """Return the parser of diffuse.py's flags."""
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    for flag, options in {
        "--prompt": dict(required=True, help="what is to be seen; nothing, '', for anything"),
        "--model": dict(
            default="checkpoints/default", metavar="NAME_OR_FOLDER",
            help="a run's folder, a pipeline's of diffusers, or a name on the Hugging Face Hub "
            "(default %(default)s)",
        ),
        "--image": dict(help="picture to begin with: a file or an http(s) address"),
        "--strength": dict(
            type=closed_share,
            help="of the noise that --image gets: 0 leaves it, 1 nothing of it (default 0.75)",
        ),
        "--guidance_scale": dict(
            type=non_negative_float,
            help="how much more the words count; 1: no more (default: 2, of --model NAME 7.5)",
        ),
        "--steps": dict(type=positive_int, default=25, help="of denoising (default %(default)s)"),
        "--scheduler": dict(
            choices=SCHEDULERS, default="ddim", help="how it steps (default %(default)s)"
        ),
        "--num_images": dict(type=positive_int, default=4, help="(default %(default)s)"),
        "--seed": dict(type=seed, default=0, help="of the first picture (default %(default)s)"),
        "--device": dict(choices=("cpu", "cuda"), help="default: cuda when there is one, else cpu"),
        "--save_dir": dict(type=Path, default=Path("visualized"), help="(default %(default)s)"),
    }.items():  # fmt: skip
        parser.add_argument(flag, **options)
    add_show_flag(parser)
    return parser


def main() -> None:
    args = make_parser().parse_args()
    if args.strength is not None and args.image is None:
        raise UsageError("--strength is of --image: give a picture to begin with")

    from lab.images import image_path, open_image
    from lab.runtime import start

    image = None
    if args.image is not None:
        path = image_path(args.image, args.save_dir / "images")
        try:
            image = open_image(path)
        except OSError as error:
            raise LabError(f"{path}: {error.strerror or error}") from error
    diffuse(args, image, start(args.device))
    if not args.no_show:
        from lab.pictures import show_figures

        show_figures()


def diffuse(args: Namespace, image: "Image.Image | None", runtime: "Runtime") -> None:
    """Paint, and save the pictures, a sheet of them and the course of the first one."""
    from lab.pictures import draw, publish
    from tasks.diffusion import painting

    words = painting.known_words(args.model)
    pipeline = painting.load_pipeline(args.model, runtime)
    painting.set_scheduler(pipeline, args.scheduler)
    say_what_is_lost(args.prompt, words, painting.cut_off(pipeline, args.prompt))
    guidance = args.guidance_scale
    if guidance is None:
        guidance = painting.PUBLISHED_GUIDANCE if words is None else painting.GUIDANCE
    seeds = range(args.seed, args.seed + args.num_images)
    painted = painting.paint(
        pipeline, [args.prompt] * len(seeds), seeds, runtime, steps=args.steps, guidance=guidance,
        images=None if image is None else [image] * len(seeds),
        strength=painting.STRENGTH if args.strength is None else args.strength, course=True,
    )  # fmt: skip
    folder = args.save_dir / "diffuse"
    for number, picture in zip(seeds, painted.pictures, strict=True):
        painting.save(picture, folder / f"seed_{number}.png")
    for picture in painting.show(args.prompt, seeds, painted, image):
        publish(draw(picture), folder / picture.path)


def say_what_is_lost(prompt: str, words: list[str] | None, beyond: str) -> None:
    """Name the words of a prompt that mean nothing, and those that it has too many."""
    from tasks.diffusion.words import unknown_words, words_of

    if words is not None and (unknown := unknown_words(prompt, words)):
        all_of_it = len(unknown) == len(set(words_of(prompt)))
        none = ", that is all of it: anything may be painted" if all_of_it else ""
        say(f"Never learned, so without a meaning: {', '.join(unknown)}{none}")
    if beyond:
        say(f"The prompt is too long; left out is: {beyond}")


if __name__ == "__main__":
    run(main)
