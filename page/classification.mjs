// A classifier's page: the likeliest classes, and everything between the picture and them.
import { card, element, latest, percent, tell, tests } from "./dom.mjs";
import { fooling } from "./fooling.mjs";
import { mapsPart } from "./maps.mjs";
import { asTensor, facts, run } from "./network.mjs";
import { greatest, softmax } from "./numbers.mjs";
import { opened } from "./opening.mjs";
import { saliencyPart } from "./saliency.mjs";
import { pictureSource } from "./source.mjs";
import { transformerPart } from "./transformer.mjs";
import { named } from "./words.mjs";

const LIKELIEST = 5;
const MOST = 640; // pixels a side of a picture that is looked at

/** Build the page and start it. */
export function start() {
  const count = facts().runs[0].classes.length;
  return opened("title_classification", ["about_classification", { count }], build);
}

function build() {
  const { runs } = facts();
  let picture = null, chosen = null; // the class that is looked at; null for the likeliest
  const columns = runs.map((own) => answersOf(own, (label) => { chosen = label; tellParts(); }));
  const looks = { run: runs[0], answer: null };
  const parts = [mapsPart(), transformerPart(), saliencyPart(), fooling()];
  const answers = new Map();

  const ask = latest(async () => {
    const pixels = asTensor(picture);
    let milliseconds = 0;
    for (const [k, own] of runs.entries()) {
      const answer = await run(own.graphs.inside, { pictures: pixels });
      answers.set(own, answer.outputs);
      milliseconds += answer.milliseconds;
      columns[k].show(answer.outputs.logits.data, chosen);
    }
    tell("took", { milliseconds: Math.round(milliseconds) });
    await tellParts();
    tests({ logits: runs.map((own) => Array.from(answers.get(own).logits.data)) });
  });

  async function tellParts() {
    const answer = answers.get(looks.run);
    if (!answer) return;
    const label = chosen ?? greatest(answer.logits.data, 1)[0];
    for (const [k, own] of runs.entries()) columns[k].mark(own === looks.run ? label : chosen);
    for (const part of parts) await part.show(looks.run, answer, label);
  }

  const source = pictureSource({ most: MOST, moves: true }, (canvas) => { picture = canvas; ask(); });
  const chooser = element("div", { class: "row", role: "group", label: "run" });
  for (const own of runs.length > 1 ? runs : []) {
    chooser.append(element("button", { type: "button", "aria-pressed": String(own === looks.run), on: { click: (event) => {
      looks.run = own;
      for (const button of chooser.children) button.setAttribute("aria-pressed", String(button === event.currentTarget));
      tellParts();
    } } }, own.name));
  }
  const likeliest = card("likeliest", element("p", { class: "note", words: "likeliest_note" }),
    element("div", { class: "side" }, ...columns.map((column) => column.part)));
  const right = element("div", {}, likeliest, chooser, ...parts.map((part) => part.part));
  return { parts: [source.part, right], begin: source.begin };
}

/** The likeliest classes of a run. */
function answersOf(own, choose) {
  const list = element("ol", { class: "bars" });
  const part = element("div", {}, ...(facts().runs.length > 1 ? [element("h3", {}, own.name)] : []), list);
  let buttons = [];

  function show(logits, chosen) {
    const shares = softmax(logits);
    const focused = buttons.findIndex((button) => button === document.activeElement);
    buttons = greatest(shares, LIKELIEST).map((label) => {
      const button = element("button", { type: "button", "aria-pressed": String(label === chosen), on: { click: () => choose(label) } },
        element("span", { words: named(own.classes[label]) }), element("span", {}, percent(shares[label])));
      button.style.setProperty("--share", `${100 * shares[label]}%`);
      button.dataset.class = label;
      return button;
    });
    list.replaceChildren(...buttons.map((button) => element("li", {}, button)));
    if (focused >= 0) buttons[focused].focus();
  }

  function mark(label) {
    for (const button of buttons) button.setAttribute("aria-pressed", String(Number(button.dataset.class) === label));
  }

  return { part, show, mark };
}
