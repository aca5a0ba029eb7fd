// The page of a network for one style: one's own photograph, painted.
import { card, element, latest, paint, slider, tell, tests } from "./dom.mjs";
import { asTensor, facts, run } from "./network.mjs";
import { opaque } from "./numbers.mjs";
import { opened } from "./opening.mjs";
import { onCanvas, pictureSource } from "./source.mjs";

const MOST = 1280, USUAL = 512; // pixels a side of a picture, and of one that nobody asked to be larger

/** Build the page and start it. */
export function start() {
  return opened("title_style", ["about_style", {}], build);
}

function build() {
  const { runs: [own] } = facts();
  let picture = null, side = USUAL;
  const canvas = element("canvas", { role: "img", label: "painted", id: "painted", width: 1, height: 1 });
  const save = element("button", { type: "button", words: "save", id: "save", disabled: true, on: { click: () => {
    const link = element("a", { download: `${own.name}.png`, href: canvas.toDataURL("image/png") });
    link.click();
  } } });
  const size = slider("side", { min: 128, max: MOST, step: 64, value: side }, (value) => {
    side = value;
    if (picture) ask();
  });
  const source = pictureSource({ most: MOST }, (taken) => {
    picture = taken;
    ask();
  });

  const ask = latest(async () => {
    tell("working");
    const small = onCanvas(picture, picture.width, picture.height, side);
    const { outputs, milliseconds } = await run(own.graphs.painter, { pictures: asTensor(small) });
    const [, height, width] = outputs.painted.dims;
    paint(canvas, opaque(outputs.painted.data), width, height);
    save.disabled = false;
    tell("took", { milliseconds: Math.round(milliseconds) });
    tests({ painted: Array.from(outputs.painted.data), size: [width, height] });
  });

  const right = card("painted", element("div", { class: "stage" }, canvas), size.line, save);
  return { parts: [source.part, right], begin: source.begin };
}
