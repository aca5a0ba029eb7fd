"""Paint pictures from words, or from a picture and words, by diffusion.

python diffuse.py --prompt "a roundabout sign at night"
python diffuse.py --prompt "a stop sign in snow" --num_images 8 --scheduler dpm --steps 15
python diffuse.py --prompt "a stop sign" --image photo.jpg --strength 0.75 --guidance_scale 7.5
python diffuse.py --prompt "a fantasy landscape" --model sd-legacy/stable-diffusion-v1-5

Without --model it is our own network that paints, of `python train.py --task diffusion`, or else
the one that comes with the project. Sources: Rombach et al. 2022 (latent diffusion), Meng et al.
2022 (image to image).
"""

from lab.console import UsageError, run
from lab.flags import parse_flags
from tasks.diffusion import DiffuseFlags


def main() -> None:
    flags = parse_flags(DiffuseFlags, __doc__)
    if flags.strength is not None and flags.image is None:
        raise UsageError("--strength is of --image: give a picture to begin with")

    from lab.drawing import show_figures
    from tasks.diffusion.painting import paint_prompt

    paint_prompt(flags)
    if not flags.no_show:
        show_figures()


if __name__ == "__main__":
    run(main)
