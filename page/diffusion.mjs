// The page of a painter: words to a picture with every step shown, and where each word looks.
import { card, element, fault, paint, paintMap, slider, tell, tests } from "./dom.mjs";
import { facts, run } from "./network.mjs";
import { noise, opaque } from "./numbers.mjs";
import { opened } from "./opening.mjs";
import { guided, step, timesteps, tokens, unknownWords } from "./sampler.mjs";
import { speak } from "./words.mjs";

/** Build the page and start it. */
export function start() {
  return opened("title_diffusion", ["about_diffusion", { count: facts().runs[0].words.length }], build);
}

function build() {
  const { runs: [own] } = facts();
  const [channels, side] = own.latents, size = channels * side * side;
  const asked = { guidance: own.guidance, steps: own.steps };
  let turn = 0, going = 0; // of what is painted, and of what is to go on: 0 for nothing
  const prompt = element("input", { type: "text", id: "prompt", label: "prompt" });
  const other = element("input", { type: "text", id: "other", label: "other_prompt" });
  const seed = element("input", { type: "number", id: "seed", label: "seed", min: "0", step: "1" });
  [prompt.value, seed.value] = [own.prompt, "0"];
  other.value = own.other;
  const unknown = element("p", { class: "note" });
  const columns = [column(), column()];
  const go = element("button", { type: "button", class: "main", words: "paint", id: "go", on: { click: () => {
    if (going) halt();
    else begin();
  } } });

  async function begin() {
    const own = going = ++turn;
    speak(go, "stop");
    try {
      await paintAll(() => own !== going);
    } catch (error) {
      if (own === going) fault("failed", { why: error.message });
    }
    if (own === going) halt();
  }

  function halt() {
    going = 0;
    speak(go, "paint");
  }

  async function paintAll(stopped) {
    const prompts = [prompt.value, ...(other.value.trim() ? [other.value] : [])];
    const count = prompts.length, begun = performance.now();
    const strange = unknownWords(prompts.join(" "), own.words);
    if (strange.length) speak(unknown, "unknown", { words: strange.join(", ") });
    else { unknown.textContent = ""; delete unknown.dataset.words; }
    columns[1].part.hidden = count < 2;
    const { guidance, steps } = asked, empty = guidance === 1 ? 0 : count; // of nothing, before the words
    const ids = [...Array(empty).fill(""), ...prompts].map((text) => tokens(text, own.tokenizer, own.length));
    const { outputs: { states } } = await run(own.graphs.text_encoder, { ids: numbers64(ids.flat(), [ids.length, own.length]) });
    if (stopped()) return;
    const whole = ids.length, first = noise(size, Number(seed.value) || 0);
    let latents = new Float32Array(count * size);
    for (let k = 0; k < count; k++) latents.set(first, k * size);
    const attention = new Float32Array(count * own.length * side * side);
    for (const [k, own_column] of columns.entries()) if (k < count) own_column.begin(prompts[k], steps);
    const times = timesteps(steps);
    for (const [index, time] of times.entries()) {
      tell("painting", { step: index + 1, steps });
      const doubled = new Float32Array(whole * size);
      for (let k = 0; k < whole; k += count) doubled.set(latents, k * size);
      const { outputs } = await run(own.graphs.step, {
        latents: { type: "float32", data: doubled, dims: [whole, channels, side, side] },
        timesteps: numbers64(Array(whole).fill(time), [whole]), states,
      });
      if (stopped()) return;
      const prediction = guided(outputs.prediction.data, count * size, guidance);
      const after = step(latents, prediction, time, steps, own.scheduler);
      latents = after.latents;
      const words = outputs.attention.data.subarray(empty * own.length * side * side);
      for (let k = 0; k < attention.length; k++) attention[k] += words[k] / steps;
      const last = index === times.length - 1;
      const pictures = await decoded(last ? latents : after.clean, count);
      if (stopped()) return;
      show(pictures, count, index);
    }
    for (let k = 0; k < count; k++) {
      columns[k].words(ids[empty + k], attention.subarray(k * own.length * side * side, (k + 1) * own.length * side * side));
    }
    tell("painted_in", { seconds: ((performance.now() - begun) / 1000).toFixed(1), steps });
    tests({ noise: Array.from(first), ids: ids.slice(empty), steps, guidance });
  }

  async function decoded(latents, count) {
    const { outputs } = await run(own.graphs.decoder, { latents: { type: "float32", data: latents, dims: [count, channels, side, side] } });
    return outputs.pictures;
  }

  function show(pictures, count, index) {
    const [, height, width] = pictures.dims, each = 3 * height * width;
    for (let k = 0; k < count; k++) {
      columns[k].show(pictures.data.subarray(k * each, (k + 1) * each), width, height, index);
    }
    globalThis.page = { ...globalThis.page, pictures: Array.from(pictures.data) };
  }

  /** What is shown of one prompt. */
  function column() {
    const heading = element("h3"), large = element("canvas", { role: "img", width: 1, height: 1 });
    const course = element("div", { class: "maps course" }), looks = element("div", { class: "looks" });
    const part = element("div", {}, heading, large, element("p", { class: "note", words: "course" }), course,
      element("p", { class: "note", words: "looks" }), looks);

    function begin(text, steps) {
      heading.textContent = text || "…";
      large.setAttribute("aria-label", heading.textContent);
      looks.replaceChildren();
      course.replaceChildren(...Array.from({ length: steps }, (_, k) => element("canvas", { role: "img", label: ["after_step", { step: k + 1 }] })));
    }

    function show(pixels, width, height, index) {
      for (const canvas of [large, course.children[index]]) paint(canvas, opaque(pixels), width, height);
    }

    function words(ids, maps) {
      const end = ids.indexOf(own.tokenizer.end), names = ids.slice(1, end).map((id) => own.tokenizer.names[id] ?? "?");
      looks.replaceChildren(...names.map((name, k) => {
        const values = maps.subarray((k + 1) * side * side, (k + 2) * side * side);
        const mean = values.reduce((sum, value) => sum + value, 0) / values.length || 1e-12;
        const canvas = element("canvas", { role: "img", label: ["looked_at", { name }] });
        paintMap(canvas, values.map((value) => value / mean), side, side, { low: 0, high: 2.5, ramp: "viridis" });
        return element("figure", { class: "tile" }, canvas, element("figcaption", {}, name));
      }));
    }

    return { part, begin, show, words };
  }

  const field = (key, input) => element("label", { class: "field" }, element("span", { words: key }), input);
  const lines = [
    slider("guidance", { min: 0, max: 12, step: 0.5, value: asked.guidance }, (value) => { asked.guidance = value; }),
    slider("steps", { min: 2, max: 50, step: 1, value: asked.steps }, (value) => { asked.steps = value; }),
  ];
  const left = card("what", field("prompt", prompt), field("other_prompt", other), element("p", { class: "note", words: "other_note" }),
    field("seed", seed), ...lines.map(({ line }) => line), element("p", { class: "note", words: "guidance_note" }), go, unknown,
    element("details", {}, element("summary", { words: "known_words" }), element("p", { class: "note" }, own.words.join(" "))));
  const right = card("painted", element("div", { class: "pair" }, ...columns.map(({ part }) => part)));
  return { parts: [left, right], begin };
}

/** Whole numbers as a network takes them. */
function numbers64(values, dims) {
  return { type: "int64", data: BigInt64Array.from(values, BigInt), dims };
}
