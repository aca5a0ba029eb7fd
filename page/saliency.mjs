// Which pixels sway the score of a class: the gradient's size (Simonyan et al. 2013).
import { card, element, paint, paintMap, tests, tile } from "./dom.mjs";
import { run as compute } from "./network.mjs";
import { asPixels, quantile, saliency } from "./numbers.mjs";
import { speak } from "./words.mjs";

/** Logits and the gradient of a class's. @param {{data: any, dims: number[]}} images network input */
export function slopeOf(run, images, label) {
  return compute(run.graphs.slope, {
    images: { type: "float32", data: images.data, dims: images.dims },
    target: { type: "int64", data: new BigInt64Array([BigInt(label)]), dims: [1] },
  });
}

export function saliencyPart() {
  const seen = tile("input_seen"), heat = tile("heat"), overlaid = tile("overlaid");
  const note = element("p", { class: "note" });
  const part = card("saliency", note, element("div", { class: "side" }, seen.figure, heat.figure, overlaid.figure));

  async function show(run, answer, label) {
    part.hidden = !run.graphs.slope;
    if (part.hidden) return;
    const { data, dims: [, , height, width] } = answer.images;
    const { outputs } = await slopeOf(run, answer.images, label);
    const side = height * width, { mean, std } = run.preprocess;
    const values = saliency(outputs.gradient.data, side);
    const high = quantile(values, 0.99) || 1e-12;
    speak(note, "saliency_note", { name: run.classes[label] });
    speak(seen.caption, "input_seen", { height, width });
    speak(seen.canvas, "input_seen", { height, width }, "aria-label");
    const pixels = asPixels(data, side, mean, std);
    paint(seen.canvas, pixels, width, height);
    paintMap(heat.canvas, values, width, height, { high, ramp: "hot" });
    const shown = pixels.slice();
    for (let k = 0; k < side; k++) {
      const share = 0.12 + 0.88 * Math.min(1, values[k] / high);
      for (let c = 0; c < 3; c++) shown[4 * k + c] *= share;
    }
    paint(overlaid.canvas, shown, width, height);
    tests({ gradient: Array.from(outputs.gradient.data), label });
  }

  return { part, show };
}
