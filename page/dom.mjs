// Elements, and the frame that every task's page has: head, foot, status, faults.
import { facts } from "./network.mjs";
import { coloured } from "./numbers.mjs";
import { languageNow, speak, switchLanguage } from "./words.mjs";

/** An element. `words` and `label` are keys of texts, or [key, values]; `on` listeners.
 * @param {string} tag @param {Record<string, any>} known @param {...(Node | string)} inside
 * @returns {any} */
export function element(tag, known = {}, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(known)) {
    if (value === undefined || value === false) continue;
    if (name === "words") speak(made, ...[value].flat());
    else if (name === "label") speak(made, ...asLabel(value));
    else if (name === "on") for (const [event, act] of Object.entries(value)) made.addEventListener(event, act);
    else if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...inside);
  return made;
}

function asLabel(value) {
  const [key, values] = [value].flat();
  return [key, values ?? {}, "aria-label"];
}

/** A part of the page with a heading. @param {string} heading key of its text */
export function card(heading, ...inside) {
  return element("section", { class: "card" }, element("h2", { words: heading }), ...inside);
}

/** A labelled slider. @returns {{line: HTMLElement, input: HTMLInputElement}} */
export function slider(key, { min, max, step, value, show = (v) => String(v) }, act) {
  const output = element("output", {}, show(value));
  const input = element("input", { type: "range", min: String(min), max: String(max), step: String(step), label: key, id: key });
  input.value = String(value);
  const tell = () => { output.textContent = show(Number(input.value)); };
  input.addEventListener("input", () => { tell(); act(Number(input.value)); });
  input.addEventListener("change", tell);
  const line = element("label", { class: "slider" }, element("span", { words: key }), input, output);
  return { line, input };
}

/** A canvas of pixels. @param {Uint8ClampedArray} pixels RGBA */
export function paint(canvas, pixels, width, height) {
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  return canvas;
}

/** Values (height, width) in colours, on a canvas. */
export function paintMap(canvas, values, width, height, { low = 0, high, ramp }) {
  return paint(canvas, coloured(values, low, high, ramp), width, height);
}

/** A picture with words below. @returns {{figure: HTMLElement, canvas: HTMLCanvasElement, caption: HTMLElement}} */
export function tile(key, values = {}) {
  const canvas = element("canvas", { role: "img", label: [key, values] });
  const caption = element("figcaption", { words: [key, values] });
  return { figure: element("figure", { class: "tile" }, canvas, caption), canvas, caption };
}

const status = element("p", { id: "status", class: "note", role: "status", "aria-live": "polite" });

/** Say what the page is doing, or has done. */
export function tell(key, values = {}) {
  status.classList.remove("fault");
  speak(status, key, values);
}

/** Say what went wrong. */
export function fault(key, values = {}) {
  speak(status, key, values);
  status.classList.add("fault");
}

/** Call one thing at a time; of calls that come meanwhile, the last alone. @param {() => Promise<void>} act */
export function latest(act) {
  let busy = false, again = false;
  return async function ask() {
    if (busy) { again = true; return; }
    busy = true;
    do {
      again = false;
      try { await act(); } catch (error) { fault("failed", { why: error.message }); }
    } while (again);
    busy = false;
  };
}

/** Head and foot of a task's page. @param {string} title @param {[string, any]} about keys of texts */
export function frame(title, about) {
  const { runs, reader } = facts();
  document.title = runs.map((run) => run.name).join(", ");
  document.documentElement.lang = languageNow() === "zh" ? "zh-Hans" : "en";
  const root = document.documentElement;
  const switchTheme = () => {
    root.dataset.theme = dark() ? "light" : "dark";
    document.dispatchEvent(new Event("theme")); // for ink that is drawn
  };
  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  document.getElementById("head").append(
    element("h1", {}, element("span", { words: title }), element("small", { words: about })),
    element("button", { type: "button", words: "language", id: "language", on: { click: switchLanguage } }),
    element("button", { type: "button", label: "theme", id: "theme", on: { click: switchTheme } }, "◐"),
    status,
  );
  document.getElementById("foot").append(
    element("p", { class: "note", words: "offline" }),
    element("h2", { words: "made_by" }),
    ...[...runs, ...(reader ? [reader] : [])].map(foot),
    element("p", { class: "facts", words: "runtime" }),
  );
}

function foot({ name, made }) {
  const figures = Object.entries(made.figures).map(([key, value]) => `; ${key} ${Number(value).toFixed(4)}`).join("");
  const about = { ...made, parameters: made.parameters.toLocaleString("en"), figures };
  const lines = [element("strong", {}, name), " – ", element("span", { words: ["made", about] })];
  if (made.command) lines.push(element("br"), element("code", {}, made.command));
  if (made.started) lines.push(element("br"), `${made.started}${made.commit ? `, ${made.commit.slice(0, 12)}` : ""}`);
  return element("p", { class: "facts" }, ...lines);
}

/** A share in words. */
export function percent(share) {
  return `${(100 * share).toFixed(share > 0.0995 ? 0 : 1)} %`;
}

/** Leave answers where tests, and the curious, find them: `page` in the console. */
export function tests(answers) {
  globalThis.page = { ...globalThis.page, ...answers, count: (globalThis.page?.count ?? 0) + 1 };
}
