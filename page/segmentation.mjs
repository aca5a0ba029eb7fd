// The page of a network for pixels: labels over one's own photograph, by opacity and by class.
import { card, element, latest, percent, slider, tell, tests } from "./dom.mjs";
import { asTensor, facts, run } from "./network.mjs";
import { labelPixels, sharesOf } from "./numbers.mjs";
import { opened } from "./opening.mjs";
import { pictureSource } from "./source.mjs";
import { named, speak } from "./words.mjs";

/** Build the page and start it. */
export function start() {
  const count = facts().runs[0].classes.length;
  return opened("title_segmentation", ["about_segmentation", { count }], build);
}

function build() {
  const { runs: [own] } = facts();
  let picture = null, labels = null, opacity = own.opacity;
  const hidden = new Set();
  const list = element("ul", { class: "bars", id: "labels" });
  const level = slider("opacity", { min: 0, max: 1, step: 0.01, value: opacity, show: percent }, (value) => {
    opacity = value;
    draw();
  });
  const source = pictureSource({ most: own.longest, draws: false, stills: true }, (canvas) => {
    picture = canvas;
    labels = null;
    ask();
  });

  const ask = latest(async () => {
    tell("working");
    const seen = picture;
    const { outputs, milliseconds } = await run(own.graphs.labeller, { pictures: asTensor(seen) });
    if (seen !== picture) return; // another one has come meanwhile
    labels = outputs.labels.data;
    draw();
    drawList();
    tell("took", { milliseconds: Math.round(milliseconds) });
    tests({ labels: Array.from(labels), size: [seen.width, seen.height] });
  });

  function draw() {
    if (!labels) return;
    const canvas = source.shown(), context = canvas.getContext("2d");
    const over = element("canvas", { width: canvas.width, height: canvas.height });
    over.getContext("2d").putImageData(new ImageData(labelPixels(labels, own.colours, opacity, hidden), canvas.width, canvas.height), 0, 0);
    context.drawImage(picture, 0, 0);
    context.drawImage(over, 0, 0);
    speak(canvas, "labelled", {}, "aria-label");
  }

  function drawList() {
    list.replaceChildren(...sharesOf(labels, own.classes.length).map(([label, share]) => {
      const button = element("button", { type: "button", "aria-pressed": String(!hidden.has(label)), on: { click: () => {
        if (!hidden.delete(label)) hidden.add(label);
        button.setAttribute("aria-pressed", String(!hidden.has(label)));
        draw();
      } } }, element("span", {}, element("span", { class: "swatch" }), element("span", { words: named(own.classes[label]) })), element("span", {}, percent(share)));
      button.style.setProperty("--share", `${100 * share}%`);
      button.querySelector(".swatch").style.background = `rgb(${own.colours[label].join(" ")})`;
      return element("li", {}, button);
    }));
  }

  const right = card("labels", element("p", { class: "note", words: "labels_note" }), level.line, list);
  return { parts: [source.part, right], layout: "two wide-first", begin: source.begin };
}
