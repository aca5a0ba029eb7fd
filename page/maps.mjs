// Every layer's feature maps; of one, its kernel and what it saw.
import { card, element, paint, paintMap, tile } from "./dom.mjs";
import { packedArray } from "./network.mjs";
import { asPixels, coloured, quantile } from "./numbers.mjs";
import { speak } from "./words.mjs";

const MOST = 256; // maps of a layer that are shown

/** @returns {{part: HTMLElement, show: Function}} */
export function mapsPart() {
  const select = element("select", { id: "layer", label: "layer", on: { change: () => draw() } });
  const grid = element("div", { class: "maps", role: "group", label: "maps" });
  const large = tile("map", { index: 0 }), kernel = tile("kernel"), saw = tile("saw");
  const part = card("maps", element("p", { class: "note", words: "maps_note" }),
    element("div", { class: "row" }, select), grid,
    element("div", { class: "side", id: "one-map" }, large.figure, kernel.figure, saw.figure));
  let run = null, answer = null, chosen = 0;

  function show(newRun, newAnswer) {
    if (newRun !== run) {
      const kept = select.selectedIndex;
      select.replaceChildren(...newRun.layers.map(({ name, shape: [count, height, width] }, index) =>
        element("option", { words: ["layer_name", { index, name, count, height, width }] })));
      select.selectedIndex = Math.min(Math.max(kept, 0), newRun.layers.length - 1);
    }
    [run, answer] = [newRun, newAnswer];
    draw();
  }

  function draw() {
    const { data, dims: [, all, height, width] } = answer[`layer_${select.selectedIndex}`];
    const count = Math.min(all, MOST), side = height * width;
    chosen = Math.min(chosen, count - 1);
    const high = quantile(data, 0.99) || 1e-6; // a few peaks would leave all else dark
    while (grid.children.length > count) grid.lastChild.remove();
    while (grid.children.length < count) grid.append(button(grid.children.length));
    for (let k = 0; k < count; k++) {
      paintMap(grid.children[k].firstChild, data.subarray(k * side, (k + 1) * side), width, height, { high, ramp: "viridis" });
    }
    one();
  }

  function button(index) {
    return element("button", { type: "button", label: ["map", { index }], "aria-pressed": "false",
      on: { click: () => { chosen = index; one(); } } }, element("canvas"));
  }

  function one() {
    const index = select.selectedIndex, { reach } = run.layers[index];
    const { data, dims: [, , height, width] } = answer[`layer_${index}`];
    const values = data.subarray(chosen * height * width, (chosen + 1) * height * width);
    for (const [k, own] of [...grid.children].entries()) own.setAttribute("aria-pressed", String(k === chosen));
    let peak = 0;
    for (let k = 0; k < values.length; k++) if (values[k] > values[peak]) peak = k;
    paintMap(large.canvas, values, width, height, { high: values[peak] || 1e-6, ramp: "viridis" });
    say(large, "map_large", { index: chosen, most: values[peak].toFixed(2) });
    drawKernel(run.arrays[`kernel_${index}`]);
    drawSeen(((peak % width) + 0.5) / width, (Math.floor(peak / width) + 0.5) / height, reach);
  }

  function drawKernel(place) {
    const [, count, height, width] = place.shape, size = count * height * width;
    const own = packedArray(place).subarray(chosen * size, (chosen + 1) * size);
    const extent = own.reduce((most, weight) => Math.max(most, Math.abs(weight)), 1e-12);
    if (count === 3) {
      paint(kernel.canvas, asPixels(own, height * width, [0.5, 0.5, 0.5], Array(3).fill(0.5 / extent)), width, height);
    } else {
      const across = Math.ceil(Math.sqrt(count)), down = Math.ceil(count / across);
      const wide = across * (width + 1) - 1, high = down * (height + 1) - 1;
      paint(kernel.canvas, new Uint8ClampedArray(4 * wide * high), wide, high);
      const context = kernel.canvas.getContext("2d");
      for (let k = 0; k < count; k++) {
        const pixels = coloured(own.subarray(k * height * width, (k + 1) * height * width), -extent, extent, "balance");
        context.putImageData(new ImageData(pixels, width, height), (k % across) * (width + 1), Math.floor(k / across) * (height + 1));
      }
    }
    say(kernel, count === 3 ? "kernel_rgb" : "kernel", { height, width, count });
  }

  function drawSeen(x, y, reach) {
    const { data, dims: [, , height, width] } = answer.handed ?? answer.images;
    const { mean, std } = run.preprocess;
    const input = paint(element("canvas"), asPixels(data, height * width, mean, std), width, height);
    const side = Math.min(reach, Math.max(height, width));
    const clamp = (place, whole) => Math.round(Math.min(Math.max(place * whole - side / 2, 0), Math.max(0, whole - side)));
    saw.canvas.width = saw.canvas.height = side;
    saw.canvas.getContext("2d").drawImage(input, -clamp(x, width), -clamp(y, height));
    say(saw, "saw", { reach: side });
  }

  return { part, show };
}

function say({ canvas, caption }, key, values) {
  speak(caption, key, values);
  speak(canvas, key, values, "aria-label");
}
