// The page of a network for clips: what it says after each frame, and in another order.
import { card, element, fault, latest, percent, tell, tests } from "./dom.mjs";
import { facts, run } from "./network.mjs";
import { boxColour, greatest, held, shuffled } from "./numbers.mjs";
import { opened } from "./opening.mjs";
import { onCanvas } from "./source.mjs";
import { named, speak } from "./words.mjs";

const SIDE = 160; // pixels of a frame's longer side, of one's own clips
const APART = 1 / 12; // seconds between frames, of one's own clips
const ORDERS = { as_filmed: (own) => own, reversed: (own) => [...own].reverse(), shuffled };

/** Build the page and start it. */
export function start() {
  const { classes, frames } = facts().runs[0];
  return opened("title_video", ["about_video", { count: classes.length, frames }], build);
}

function build() {
  const { runs: [own] } = facts();
  let clip = []; // canvases of one size, as many as the network takes
  let seed = 1;
  const stage = element("canvas", { role: "img", label: "the_clip", id: "clip", width: 1, height: 1 });
  const playing = element("div", { class: "stage small" }, stage);
  let timer = 0;

  function take(frames) {
    clip = frames;
    let shown = 0;
    clearInterval(timer);
    stage.width = clip[0].width;
    stage.height = clip[0].height;
    const next = () => {
      stage.getContext("2d").drawImage(clip[shown % clip.length], 0, 0);
      shown = (shown + 1) % (clip.length + 4); // it rests on its end for a while
      if (shown > clip.length) shown = 0;
    };
    next();
    timer = setInterval(next, 120);
    ask();
  }

  const chart = element("canvas", { role: "img", label: "after_each", width: 900, height: 300, id: "chart" });
  const keys = element("p", { class: "note" });
  let charted = null;
  document.addEventListener("theme", () => { if (charted) drawChart(chart, keys, own.classes, charted); });
  const columns = Object.keys(ORDERS).map((key) => {
    const strip = element("canvas", { role: "img", label: key }), list = element("ol", { class: "bars" });
    return { key, strip, list, part: element("div", {}, element("h3", { words: key }), strip, list) };
  });

  const ask = latest(async () => {
    const seen = clip;
    // After each frame: those so far, the last one held to the end.
    const { outputs, milliseconds } = await run(own.graphs.clips, { clips: asClips(seen.map((_, k) => held(seen, k + 1))) });
    const count = own.classes.length, shares = seen.map((_, k) => outputs.probabilities.data.subarray(k * count, (k + 1) * count));
    if (seen !== clip) return;
    charted = shares;
    drawChart(chart, keys, own.classes, shares);
    tell("took", { milliseconds: Math.round(milliseconds) });
    tests({ shares: shares.map((own) => Array.from(own)) });
    await order(seen);
  });

  async function order(seen = clip) {
    const orders = columns.map(({ key }) => ORDERS[key](seen, seed));
    const { outputs } = await run(own.graphs.clips, { clips: asClips(orders) });
    const count = own.classes.length;
    for (const [k, { strip, list }] of columns.entries()) {
      drawStrip(strip, orders[k]);
      const shares = outputs.probabilities.data.subarray(k * count, (k + 1) * count);
      list.replaceChildren(...greatest(shares, 3).map((label) => {
        const line = element("div", {}, element("span", { words: named(own.classes[label]) }), element("span", {}, percent(shares[label])));
        line.style.setProperty("--share", `${100 * shares[label]}%`);
        return element("li", {}, line);
      }));
    }
    tests({ orders: columns.map((_, k) => Array.from(outputs.probabilities.data.subarray(k * count, (k + 1) * count))) });
  }

  const again = element("button", { type: "button", words: "shuffle_again", id: "shuffle", on: { click: () => {
    seed += 1;
    order().catch((error) => fault("failed", { why: error.message }));
  } } });
  const inputs = clipInputs(own.frames, take);
  const samples = own.clips.map(({ strip, label }, k) => element("button", {
    type: "button", label: ["sample_clip", { number: k + 1, name: own.classes[label] ?? "?" }], on: { click: () => sample(k) },
  }, cover(strip)));

  async function sample(k) {
    const image = new Image();
    image.src = own.clips[k].strip;
    await image.decode();
    const width = image.naturalWidth / own.frames, height = image.naturalHeight;
    take(Array.from({ length: own.frames }, (_, t) => {
      const frame = element("canvas", { width, height });
      frame.getContext("2d", { willReadFrequently: true }).drawImage(image, -t * width, 0);
      return frame;
    }));
  }

  const left = card("clip", playing, element("div", { class: "samples" }, ...samples),
    element("div", { class: "row" }, ...inputs), element("p", { class: "note", words: ["clip_note", { frames: own.frames }] }));
  const right = element("div", {},
    card("after_each", element("p", { class: "note", words: "after_each_note" }), chart, keys),
    card("order", element("p", { class: "note", words: "order_note" }), element("div", { class: "side" }, ...columns.map(({ part }) => part)), again));
  return { parts: [left, right], begin: () => sample(0) };
}

/** Clips of canvases as a network takes them. @param {HTMLCanvasElement[][]} clips */
function asClips(clips) {
  const [[{ width, height }]] = clips, size = 3 * width * height, frames = clips[0].length;
  const pixels = new Map();
  for (const frame of new Set(clips.flat())) {
    const { data } = frame.getContext("2d").getImageData(0, 0, width, height), own = new Uint8Array(size);
    for (let k = 0, j = 0; j < size; k += 4) for (let c = 0; c < 3; c++) own[j++] = data[k + c];
    pixels.set(frame, own);
  }
  const whole = new Uint8Array(clips.length * frames * size);
  clips.flat().forEach((frame, k) => whole.set(pixels.get(frame), k * size));
  return { type: "uint8", data: whole, dims: [clips.length, frames, height, width, 3] };
}

/** The first frame of a strip as a button's picture. */
function cover(strip) {
  const image = element("img", { src: strip, alt: "" });
  image.style.objectPosition = "left";
  return image;
}

function drawStrip(canvas, frames) {
  const { width, height } = frames[0], across = Math.ceil(Math.sqrt(frames.length * 2));
  canvas.width = across * width;
  canvas.height = Math.ceil(frames.length / across) * height;
  const context = canvas.getContext("2d");
  frames.forEach((frame, k) => context.drawImage(frame, (k % across) * width, Math.floor(k / across) * height));
}

/** The likeliest classes' shares over the frames seen so far. */
function drawChart(canvas, keys, classes, shares) {
  const context = canvas.getContext("2d"), { width, height } = canvas, ink = getComputedStyle(canvas).color;
  const highest = classes.map((_, label) => Math.max(...shares.map((own) => own[label])));
  const labels = greatest(highest, Math.min(4, classes.length));
  context.clearRect(0, 0, width, height);
  context.strokeStyle = context.fillStyle = ink;
  context.font = "20px sans-serif";
  context.globalAlpha = 0.3;
  for (const share of [0, 0.5, 1]) context.strokeRect(75, 20 + (1 - share) * (height - 60), width - 95, 0);
  context.globalAlpha = 1;
  for (const share of [0, 0.5, 1]) context.fillText(`${100 * share} %`, 0, 27 + (1 - share) * (height - 60));
  const x = (k) => 75 + ((k + 0.5) / shares.length) * (width - 95), y = (share) => 20 + (1 - share) * (height - 60);
  shares.forEach((_, k) => context.fillText(String(k + 1), x(k) - 8, height - 8));
  for (const label of labels) {
    context.strokeStyle = chartColour(label);
    context.lineWidth = 5;
    context.beginPath();
    shares.forEach((own, k) => context.lineTo(x(k), y(own[label])));
    context.stroke();
  }
  keys.replaceChildren(...labels.flatMap((label) => {
    const swatch = element("span", { class: "swatch" });
    swatch.style.background = chartColour(label);
    return [swatch, element("span", { words: named(classes[label]) }), ` ${percent(shares.at(-1)[label])}   `];
  }));
}

const chartColour = (label) => boxColour(label).replace("32%", "50%");

/** Buttons by which one's own clips come: a film, the camera. */
function clipInputs(count, take) {
  const video = element("video", { muted: true, playsInline: true });
  const file = element("input", { type: "file", accept: "video/*", label: "choose_film", id: "file", on: { change: () => {
    if (file.files[0]) film(file.files[0]);
    file.value = "";
  } } });
  const camera = element("button", { type: "button", words: "record", id: "camera", on: { click: () => record() } });
  const grab = () => onCanvas(video, video.videoWidth, video.videoHeight, SIDE);

  async function film(chosen) {
    const address = URL.createObjectURL(chosen);
    try {
      await new Promise((resolve, reject) => {
        video.onloadeddata = resolve;
        video.onerror = () => reject(new Error());
        video.src = address;
      });
      const frames = [], apart = Math.min(APART, video.duration / count);
      for (let k = 0; k < count; k++) {
        const there = new Promise((resolve) => { video.onseeked = resolve; });
        video.currentTime = (k + 0.5) * apart;
        await there;
        frames.push(grab());
      }
      take(frames);
    } catch {
      fault("no_film", { name: chosen.name });
    } finally {
      video.removeAttribute("src");
      URL.revokeObjectURL(address);
    }
  }

  async function record() {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: true });
    } catch (error) {
      fault("no_camera", { why: error.message });
      return;
    }
    camera.disabled = true;
    video.srcObject = stream;
    await video.play();
    const frames = [];
    for (let k = 0; k < count; k++) {
      frames.push(grab());
      speak(camera, "recording", { number: k + 1, count });
      await new Promise((resolve) => setTimeout(resolve, 1000 * APART));
    }
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    camera.disabled = false;
    speak(camera, "record");
    take(frames);
  }

  return [element("label", { class: "button" }, file, element("span", { words: "choose_film" })), camera];
}
