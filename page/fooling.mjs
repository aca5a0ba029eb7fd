// A picture changed step by step until the network says another class (Szegedy et al. 2013).
import { card, element, fault, paint, percent, tile } from "./dom.mjs";
import { asPixels, foolingStep, greatest, softmax } from "./numbers.mjs";
import { slopeOf } from "./saliency.mjs";
import { named, speak } from "./words.mjs";

const LENGTH = 0.5; // of a step, in units of network input
const REACH = 0.099; // that a pixel changes at the most, of black to white
const MOST_STEPS = 100;

export function fooling() {
  const target = element("select", { id: "target", label: "target" });
  const changed = tile("changed"), difference = tile("difference");
  const state = element("p", { role: "status" });
  let run = null, original = null, image = null, steps = 0;
  let turn = 0, going = 0; // of what is begun, and of what goes on until it is fooled: 0 for nothing
  const stepButton = element("button", { type: "button", words: "step", id: "step", on: { click: () => { halt(); guarded(step); } } });
  const goButton = element("button", { type: "button", class: "main", words: "go", id: "go", on: { click: () => (going ? halt() : guarded(go)) } });
  const part = card("fool", element("p", { class: "note", words: "fool_note" }),
    element("div", { class: "row" }, element("label", {}, element("span", { words: "target" }), " ", target), stepButton, goButton,
      element("button", { type: "button", words: "reset", on: { click: () => { halt(); if (original) begin(); } } })),
    state, element("div", { class: "side" }, changed.figure, difference.figure));

  function show(newRun, answer, label) {
    part.hidden = !newRun.graphs.slope;
    if (part.hidden || (newRun === run && answer.images === original)) return;
    if (newRun !== run) {
      target.replaceChildren(...newRun.classes.map((name, k) => element("option", { value: String(k), words: named(name) })));
      const order = greatest(answer.logits.data, 2);
      target.value = String(order.find((other) => other !== label) ?? 0);
    }
    [run, original] = [newRun, answer.images];
    halt();
    begin(answer.logits.data);
  }

  function begin(logits = null) {
    image = Float32Array.from(original.data);
    steps = 0;
    draw(logits);
  }

  function halt() {
    turn += 1;
    going = 0;
    speak(goButton, "go");
  }

  async function guarded(act) {
    if (!original) return; // no picture has come yet
    try { await act(); } catch (error) { halt(); fault("failed", { why: error.message }); }
  }

  /** Take a step; returns whether there is no other to take: the network says the target. */
  async function step() {
    const label = Number(target.value), own = turn;
    const { outputs } = await slopeOf(run, { data: image, dims: original.dims }, label);
    if (own !== turn) return true; // another picture has come, or it was stopped
    const fooled = greatest(outputs.logits.data, 1)[0] === label;
    if (!fooled) {
      const { mean, std } = run.preprocess;
      image = foolingStep({ image, original: original.data, gradient: outputs.gradient.data }, { length: LENGTH, reach: REACH, mean, std });
      steps += 1;
    }
    draw(outputs.logits.data, fooled);
    return fooled;
  }

  async function go() {
    const own = going = ++turn;
    speak(goButton, "stop");
    for (let k = 0; k <= MOST_STEPS && own === turn; k++) {
      if (await step()) break;
      await new Promise((resolve) => setTimeout(resolve, 30));
    }
    if (own === turn) halt();
  }

  function draw(logits, fooled = false) {
    const [, , height, width] = original.dims, side = height * width, { mean, std } = run.preprocess;
    paint(changed.canvas, asPixels(image, side, mean, std), width, height);
    const moved = image.map((value, k) => 5 * (value - original.data[k]));
    paint(difference.canvas, asPixels(moved, side, mean.map(() => 0.5), std), width, height);
    if (!logits) {
      state.textContent = "";
      delete state.dataset.words;
      return;
    }
    const shares = softmax(logits), [first] = greatest(shares, 1);
    speak(state, fooled ? "fooled" : "fool_state", { steps, name: run.classes[first],
      share: percent(shares[first]), other: percent(shares[Number(target.value)]) });
    state.dataset.fooled = String(fooled);
  }

  return { part, show };
}
