// Where pictures come from: samples, files, paste, drop, a drawing, the camera.
import { card, element, fault, slider, tell } from "./dom.mjs";
import { facts } from "./network.mjs";
import { fitted } from "./numbers.mjs";
import { speak } from "./words.mjs";

const DRAWING = 256; // pixels a side of what is drawn on
const STILL = 640; // pixels a side, at the most, of what the camera gives

/** A bitmap, or other source, on a canvas of at most so many pixels a side; white where it is clear. */
export function onCanvas(source, width, height, most) {
  const [wide, high] = fitted(width, height, most);
  const canvas = element("canvas", { width: wide, height: high });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, wide, high);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, wide, high);
  return canvas;
}

/** The part of the page that pictures come in by.
 * @param {{most: number, draws?: boolean, stills?: boolean, moves?: boolean}} how most: pixels a side;
 *   stills: of the camera, one picture when asked instead of all; moves: with turn, shift, scale
 * @param {(canvas: HTMLCanvasElement) => void} show is given each picture */
export function pictureSource({ most, draws = true, stills = false, moves = false }, show) {
  let whole = null; // the picture before it is moved
  let asked = 0; // pictures so far: of two that are on their way, the one asked for last counts
  const moved = { turn: 0, shift_x: 0, shift_y: 0, scale: 1 };
  const stage = element("div", { class: "stage" });

  function take(canvas) {
    whole = canvas;
    refresh();
  }

  function refresh() {
    if (!whole) return;
    const canvas = moves ? movedPicture(whole, moved) : whole;
    canvas.setAttribute("role", "img");
    if (!drawing.open) stage.replaceChildren(labelled(canvas));
    show(canvas);
  }

  function labelled(canvas) {
    const shown = element("canvas", { width: canvas.width, height: canvas.height, role: "img", label: "the_picture", id: "picture" });
    shown.getContext("2d").drawImage(canvas, 0, 0); // a task may draw over it
    stage.classList.toggle("small", Math.max(canvas.width, canvas.height) <= 96);
    return shown;
  }

  async function read(blob, name) {
    stop();
    const own = asked;
    try {
      const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image" });
      if (own === asked) take(onCanvas(bitmap, bitmap.width, bitmap.height, most));
      bitmap.close();
    } catch {
      if (own === asked) fault("no_picture", { name });
    }
  }

  const file = element("input", { type: "file", accept: "image/*", label: "choose", id: "file", on: { change: () => {
    if (file.files[0]) read(file.files[0], file.files[0].name);
    file.value = "";
  } } });
  document.addEventListener("paste", (event) => {
    const [pasted] = event.clipboardData.files;
    if (pasted) read(pasted, pasted.name);
  });
  // Anywhere: beside the stage, the browser would leave the page for the picture.
  document.addEventListener("dragover", (event) => { event.preventDefault(); stage.classList.add("over"); });
  document.addEventListener("dragleave", () => stage.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("over");
    const [dropped] = event.dataTransfer.files;
    if (dropped) read(dropped, dropped.name);
  });

  const drawing = drawingBoard(take);
  const camera = cameraOf(Math.min(most, STILL), take, stills, () => { asked += 1; });

  function stop() {
    asked += 1;
    drawing.close();
    camera.stop();
    stage.classList.remove("drawing");
  }

  const buttons = [element("label", { class: "button" }, file, element("span", { words: "choose" }))];
  if (draws) buttons.push(element("button", { type: "button", words: "draw", id: "draw", on: { click: () => {
    stop();
    stage.classList.remove("small");
    stage.classList.add("drawing");
    stage.replaceChildren(drawing.start());
    take(drawing.canvas);
  } } }));
  buttons.push(camera.button, ...(stills ? [camera.snap] : []));
  const thumbs = facts().samples.map((address, k) => element("button", {
    type: "button", label: ["samples", { number: k + 1 }], on: { click: () => readAddress(address) },
  }, element("img", { src: address, alt: "" })));

  async function readAddress(address) {
    stop();
    const own = asked, image = new Image();
    image.src = address;
    await image.decode();
    if (own === asked) take(onCanvas(image, image.naturalWidth, image.naturalHeight, most));
  }

  const inside = [stage, element("div", { class: "samples" }, ...thumbs), element("div", { class: "row" }, ...buttons),
    ...(draws ? [drawing.tools] : []), element("p", { class: "note", words: "paste_hint" })];
  if (moves) inside.push(movers(moved, refresh));
  const shown = () => stage.querySelector("canvas");
  return { part: card("picture", ...inside), shown, begin: () => (asked ? undefined : readAddress(facts().samples[0])) };
}

/** A picture turned, shifted and scaled within its own size; mid-grey where nothing of it is. */
export function movedPicture(whole, { turn, shift_x, shift_y, scale }) {
  if (turn === 0 && shift_x === 0 && shift_y === 0 && scale === 1) return whole;
  const { width, height } = whole;
  const canvas = element("canvas", { width, height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "rgb(128 128 128)";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.translate(width * (0.5 + shift_x), height * (0.5 + shift_y));
  context.rotate((turn * Math.PI) / 180);
  context.scale(scale, scale);
  context.drawImage(whole, -width / 2, -height / 2);
  return canvas;
}

function movers(moved, refresh) {
  const share = (value) => `${Math.round(100 * value)} %`;
  const lines = {
    turn: { min: -180, max: 180, step: 1, value: 0, show: (value) => `${value}°` },
    shift_x: { min: -0.5, max: 0.5, step: 0.01, value: 0, show: share },
    shift_y: { min: -0.5, max: 0.5, step: 0.01, value: 0, show: share },
    scale: { min: 0.3, max: 2, step: 0.01, value: 1, show: share },
  };
  const made = Object.entries(lines).map(([key, how]) => [key, how, slider(key, how, (value) => {
    moved[key] = value;
    refresh();
  })]);
  const reset = element("button", { type: "button", words: "reset", id: "reset", on: { click: () => {
    for (const [key, how, { input }] of made) {
      moved[key] = how.value;
      input.value = String(how.value);
      input.dispatchEvent(new Event("change"));
    }
    refresh();
  } } });
  return element("div", {}, ...made.map(([, , { line }]) => line), reset);
}

/** A board to draw on: its canvas and tools. */
function drawingBoard(take) {
  const canvas = element("canvas", { width: DRAWING, height: DRAWING, label: "drawing_area", role: "img" });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const colour = element("input", { type: "color", label: "colour" });
  colour.value = "#c1121f";
  const brush = slider("brush", { min: 2, max: 60, step: 1, value: 18 }, () => {});
  const tools = element("div", { hidden: true }, element("div", { class: "row" }, colour,
    element("button", { type: "button", words: "clear", on: { click: () => { clear(); take(canvas); } } })), brush.line);
  let last = null;
  const board = { canvas, tools, open: false, start, close: () => { board.open = false; tools.hidden = true; } };

  function clear() {
    context.fillStyle = "white";
    context.fillRect(0, 0, DRAWING, DRAWING);
  }

  function start() {
    if (!board.started) { clear(); board.started = true; }
    board.open = true;
    tools.hidden = false;
    return canvas;
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return [((event.clientX - box.left) * DRAWING) / box.width, ((event.clientY - box.top) * DRAWING) / box.height];
  }

  function line(event) {
    if (!last) return;
    const next = place(event);
    context.strokeStyle = colour.value;
    context.lineWidth = Number(brush.input.value);
    context.lineCap = "round";
    context.beginPath();
    context.moveTo(...last);
    context.lineTo(...next);
    context.stroke();
    last = next;
    take(canvas);
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    line(event);
  });
  canvas.addEventListener("pointermove", line);
  canvas.addEventListener("pointerup", () => { last = null; });
  return board;
}

/** The camera: a button that starts and stops it, one that takes a still. `starts` is told. */
function cameraOf(most, take, stills, starts) {
  const video = element("video", { muted: true, playsInline: true });
  let stream = null, timer = 0, turn = 0; // a start that is stopped while the user is asked is none
  const button = element("button", { type: "button", words: "camera", id: "camera", on: { click: () => (stream ? stop() : start()) } });
  const snap = element("button", { type: "button", words: "snap", id: "snap", disabled: true, on: { click: () => { grab(); stop(); } } });

  function grab() {
    if (video.videoWidth) take(onCanvas(video, video.videoWidth, video.videoHeight, most));
  }

  async function start() {
    const own = ++turn;
    starts();
    try {
      const given = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      if (own !== turn) {
        given.getTracks().forEach((track) => track.stop());
        return;
      }
      stream = video.srcObject = given;
      await video.play();
    } catch (error) {
      if (own !== turn) return;
      stop();
      fault("no_camera", { why: error.message });
    }
    if (own !== turn) return;
    speak(button, "camera_stop");
    snap.disabled = false;
    grab();
    if (!stills) timer = setInterval(grab, 120);
    tell("working");
  }

  function stop() {
    turn += 1;
    if (!stream) return;
    clearInterval(timer);
    stream.getTracks().forEach((track) => track.stop());
    stream = null;
    snap.disabled = true;
    speak(button, "camera");
  }

  return { button, snap, start, stop };
}
