// A detector's page: boxes over one's own photograph, each read by a second network if there is one.
import { card, element, latest, percent, slider, tell, tests } from "./dom.mjs";
import { asTensor, facts, run } from "./network.mjs";
import { boxColour, greatest, widened } from "./numbers.mjs";
import { opened } from "./opening.mjs";
import { onCanvas, pictureSource } from "./source.mjs";
import { named, speak, words } from "./words.mjs";

const MOST = 1280; // pixels a side of a photograph: signs are small in it
const MARGIN = 0.1, LEAST_MARGIN = 5; // of a box's sides, and in pixels, around what is read

/** How surely something is there: of what is read, the score times how surely that is read. */
const certainty = ({ score, read }) => (read ? score * read.share : score);

/** Build the page and start it. */
export function start() {
  const count = facts().runs[0].classes.length;
  return opened("title_detection", ["about_detection", { count }], build);
}

function build() {
  const { runs: [own], reader } = facts();
  let picture = null, every = [], threshold = own.threshold;
  const rows = element("tbody");
  const heads = ["thing", "score", ...(reader ? ["read_as", "score"] : [])];
  const table = element("table", { id: "found" },
    element("thead", {}, element("tr", {}, ...heads.map((key) => element("th", { scope: "col", words: key })))), rows);
  const nothing = element("p", { class: "note", words: "nothing", hidden: true });
  const level = slider("threshold", { min: own.least, max: 0.95, step: 0.01, value: threshold, show: percent }, (value) => {
    threshold = value;
    draw();
    readMore();
  });

  const source = pictureSource({ most: MOST, draws: false, stills: true }, (canvas) => {
    picture = canvas;
    every = [];
    ask();
  });

  const ask = latest(async () => {
    tell("working");
    const seen = picture;
    // As large as the pictures that it was trained on, where it says so: boxes are of the whole picture.
    const small = own.longest ? onCanvas(seen, seen.width, seen.height, own.longest) : seen;
    const { outputs, milliseconds } = await run(own.graphs.detector, { pictures: asTensor(small) });
    const [x, y] = [seen.width / small.width, seen.height / small.height], found = [];
    for (let k = 0; k < outputs.scores.data.length && outputs.scores.data[k] > 0; k++) {
      const box = Array.from(outputs.boxes.data.subarray(4 * k, 4 * k + 4), (edge, side) => edge * (side % 2 ? y : x));
      found.push({ box, score: outputs.scores.data[k], label: Number(outputs.labels.data[k]) });
    }
    const begun = performance.now();
    await readAll(seen, found);
    if (seen !== picture) return; // another one has come meanwhile
    every = found;
    draw();
    const reading = Math.round(performance.now() - begun);
    tell(reader ? "took_read" : "took", { milliseconds: Math.round(milliseconds), reading });
    tests({ found: every });
  });

  const readMore = latest(async () => {
    const found = every;
    await readAll(picture, found);
    if (reader && found === every) draw();
  });

  /** Have the second network read what is not below the threshold, and has not been read. */
  async function readAll(seen, found) {
    for (const one of found) if (reader && !one.read && one.score >= threshold) one.read = await readBox(seen, one.box);
  }

  /** Have the second network read a box: a class of its own, and how surely. */
  async function readBox(seen, box) {
    const [left, top, right, bottom] = widened(box, MARGIN, LEAST_MARGIN);
    const crop = element("canvas", { width: Math.max(1, right - left), height: Math.max(1, bottom - top) });
    const context = crop.getContext("2d", { willReadFrequently: true });
    context.fillRect(0, 0, crop.width, crop.height); // black beyond the picture, as files are cropped
    context.drawImage(seen, -left, -top);
    const { outputs } = await run(reader.graphs.classifier, { pictures: asTensor(crop) });
    const [label] = greatest(outputs.probabilities.data, 1);
    return { name: reader.classes[label], share: outputs.probabilities.data[label] };
  }

  document.addEventListener("language", () => { if (every.length) draw(); });

  function draw(marked = -1) {
    const canvas = source.shown(), context = canvas?.getContext("2d");
    if (!canvas) return; // no picture has come yet
    const shown = every.filter((one) => (!reader || one.read) && certainty(one) >= threshold);
    context.drawImage(picture, 0, 0);
    const size = Math.max(12, canvas.width / 48);
    context.font = `600 ${size}px sans-serif`;
    context.textBaseline = "bottom";
    for (const [k, one] of shown.entries()) {
      const { box: [left, top, right, bottom], label, read } = one;
      const colour = boxColour(label);
      context.lineWidth = (k === marked ? 2.5 : 1) * Math.max(2, canvas.width / 420);
      context.strokeStyle = colour;
      context.strokeRect(left, top, right - left, bottom - top);
      const name = `${words(...named(read ? read.name : own.classes[label]))} ${percent(certainty(one))}`;
      const wide = context.measureText(name).width + size / 2;
      const x = Math.min(left, canvas.width - wide), y = top > size * 1.4 ? top : Math.min(canvas.height, bottom + size * 1.4);
      context.fillStyle = colour;
      context.fillRect(x, y - size * 1.3, wide, size * 1.3);
      context.fillStyle = "white";
      context.fillText(name, x + size / 4, y - size * 0.1);
    }
    speak(canvas, "boxes_in", { count: shown.length }, "aria-label");
    rows.replaceChildren(...shown.map(({ score, label, read }, k) => {
      const cells = [element("td", {}, element("span", { class: "swatch" }), element("span", { words: named(own.classes[label]) })), element("td", { class: "number" }, percent(score))];
      cells[0].firstChild.style.background = boxColour(label);
      if (reader) cells.push(element("td", { words: named(read.name) }), element("td", { class: "number" }, percent(read.share)));
      return element("tr", { on: { mouseenter: () => draw_marked(k), mouseleave: () => draw_marked(-1) } }, ...cells);
    }));
    nothing.hidden = shown.length > 0 || every.length === 0;
    table.hidden = shown.length === 0;
  }

  /** Mark a box; the table stays as it is, under the pointer. */
  function draw_marked(index) {
    const kept = [...rows.children];
    draw(index);
    rows.replaceChildren(...kept);
  }

  const right = card("found", element("p", { class: "note", words: reader ? "found_read_note" : "found_note" }), level.line, table, nothing);
  return { parts: [source.part, right], layout: "two wide-first", begin: source.begin };
}
