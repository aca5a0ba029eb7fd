// Where a spatial transformer looks: its frame on the input, and what it hands on.
import { card, element, paint, tile } from "./dom.mjs";
import { asPixels, frameOf } from "./numbers.mjs";

const ENLARGED = 8; // pixels of the drawing a pixel of the input: the frame is a thin line
const MARGIN = 0.2; // of the input's side, around it: frames may reach beyond

export function transformerPart() {
  const framed = tile("framed"), handed = tile("handed");
  const part = card("transformer", element("p", { class: "note", words: "transformer_note" }),
    element("div", { class: "side" }, framed.figure, handed.figure));
  part.hidden = true;

  function show(run, answer) {
    part.hidden = !run.has_stn;
    if (part.hidden) return;
    const { data, dims: [, , height, width] } = answer.images;
    const { mean, std } = run.preprocess;
    const input = paint(element("canvas"), asPixels(data, height * width, mean, std), width, height);
    const { canvas } = framed;
    const margin = Math.round(MARGIN * Math.max(width, height)) * ENLARGED;
    canvas.width = width * ENLARGED + 2 * margin;
    canvas.height = height * ENLARGED + 2 * margin;
    const context = canvas.getContext("2d");
    context.fillStyle = "rgb(128 128 128)";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = false;
    context.drawImage(input, margin, margin, width * ENLARGED, height * ENLARGED);
    const corners = frameOf(answer.theta.data).map(([x, y]) => [
      margin + x * width * ENLARGED, margin + y * height * ENLARGED,
    ]);
    context.strokeStyle = "magenta";
    context.lineWidth = 4;
    context.beginPath();
    corners.forEach((corner) => context.lineTo(...corner));
    context.closePath();
    context.stroke();
    context.fillStyle = "magenta"; // its upper left corner
    context.beginPath();
    context.arc(...corners[0], 8, 0, 2 * Math.PI);
    context.fill();
    paint(handed.canvas, asPixels(answer.handed.data, height * width, mean, std), width, height);
  }

  return { part, show };
}
