// Networks that are packed in the page: unpacked here, run in a worker, so that the page stays alive.
import { inBoth } from "./names.mjs";
import { interleaved } from "./numbers.mjs";

/** @typedef {{type: string, data: any, dims: number[]}} Tensor */

/** What the page knows of its runs, as `tasks/showing.py` writes it; classes as [English, Chinese]. */
export function facts() {
  if (known) return known;
  known = JSON.parse(document.getElementById("facts").textContent);
  for (const own of [...known.runs, known.reader]) if (own?.classes) own.classes = inBoth(own.classes);
  return known;
}

let known;

/** Bytes of a text in base64. @param {string} text @returns {Uint8Array} */
export function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let k = 0; k < letters.length; k++) bytes[k] = letters.charCodeAt(k);
  return bytes;
}

/** Bytes of what is packed under a name; the text is let go of. @returns {Promise<Uint8Array>} */
async function unpack(name) {
  const place = document.getElementById(`packed-${name}`);
  const packed = new Blob([fromBase64(place.textContent)]);
  place.remove();
  const stream = packed.stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** What the browser lacks that the page needs: names, none where all is there. */
export function lacking() {
  const needed = { WebAssembly: globalThis.WebAssembly, Worker: globalThis.Worker,
    DecompressionStream: globalThis.DecompressionStream,
    createImageBitmap: globalThis.createImageBitmap };
  return Object.keys(needed).filter((name) => !needed[name]);
}

const waiting = new Map();
let worker, weights, calls = 0;

function call(name, message, transferred = []) {
  const id = ++calls;
  worker.postMessage({ id, call: name, ...message }, transferred);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

/** Start the worker with the runtime and the weights. */
export async function startNetworks() {
  const engine = document.getElementById("engine");
  const source = new Blob([engine.textContent], { type: "text/javascript" });
  worker = new Worker(URL.createObjectURL(source));
  worker.onmessage = ({ data }) => {
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error === undefined) resolve(data);
    else reject(new Error(data.error));
  };
  worker.onerror = (event) => {
    for (const { reject } of waiting.values()) reject(new Error(event.message || "worker"));
  };
  const [wasm, planes] = await Promise.all([unpack("wasm"), unpack("weights")]);
  weights = interleaved(planes);
  await call("start", { wasm, weights }, [wasm.buffer]);
}

const opened = new Map();

/** Run a network. @param {string} name @param {Record<string, Tensor>} inputs
 * @returns {Promise<{outputs: Record<string, Tensor>, milliseconds: number}>} */
export async function run(name, inputs) {
  if (!opened.has(name)) opened.set(name, unpack(name).then((graph) => call("open", { name, graph })));
  await opened.get(name);
  return call("run", { name, inputs });
}

/** Numbers of the pack. @param {{offset: number, shape: number[]}} place */
export function packedArray({ offset, shape }) {
  const count = shape.reduce((product, side) => product * side, 1);
  return new Float32Array(weights.buffer, weights.byteOffset + offset, count);
}

/** A picture as a network takes it. @param {HTMLCanvasElement} canvas @returns {Tensor} */
export function asTensor(canvas) {
  const { width, height } = canvas, { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  const pixels = new Uint8Array(3 * width * height);
  for (let k = 0, j = 0; k < data.length; k += 4) {
    pixels[j++] = data[k];
    pixels[j++] = data[k + 1];
    pixels[j++] = data[k + 2];
  }
  return { type: "uint8", data: pixels, dims: [1, height, width, 3] };
}
