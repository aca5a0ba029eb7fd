// Arithmetic of what the page shows; nothing here knows of the page.

/** Bytes that lie in four planes, the first of every four in the first. @param {Uint8Array} planes */
export function interleaved(planes) {
  const bytes = new Uint8Array(planes.length), each = planes.length / 4;
  for (let k = 0; k < bytes.length; k++) bytes[k] = planes[(k % 4) * each + (k >> 2)];
  return bytes;
}

/** Shares of scores, as softmax has them. @param {ArrayLike<number>} scores @returns {number[]} */
export function softmax(scores) {
  const values = Array.from(scores);
  const highest = Math.max(...values);
  const powers = values.map((score) => Math.exp(score - highest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

/** Places of the greatest values, the greatest first. @returns {number[]} */
export function greatest(values, count) {
  const order = Array.from(values, (_, k) => k).sort((a, b) => values[b] - values[a]);
  return order.slice(0, count);
}

/** The value below which a share of all lies. */
export function quantile(values, share) {
  const sorted = Float32Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

const RAMPS = {
  viridis: ["440154", "472d7b", "3b528b", "2c728e", "21918c", "28ae80", "5ec962", "addc30", "fde725"],
  hot: ["0b0000", "5c0000", "ad0000", "ff0000", "ff5400", "ffa800", "fffc00", "ffff7f", "ffffff"],
  balance: ["053061", "2166ac", "4393c3", "92c5de", "f7f7f7", "f4a582", "d6604d", "b2182b", "67001f"],
};

/** Colours of a ramp, 256 of [red, green, blue]. @param {keyof RAMPS} name */
export function ramp(name) {
  const stops = RAMPS[name].map((hex) => [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16)));
  return Array.from({ length: 256 }, (_, k) => {
    const place = (k / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    return stops[low].map((own, c) => Math.round(own + (stops[low + 1][c] - own) * (place - low)));
  });
}

/** Values between two limits as pixels of a ramp. @returns {Uint8ClampedArray} RGBA */
export function coloured(values, low, high, name) {
  const colours = ramp(name);
  const pixels = new Uint8ClampedArray(4 * values.length);
  const scale = 255 / Math.max(high - low, 1e-12);
  for (let k = 0; k < values.length; k++) {
    const level = Math.max(0, Math.min(255, Math.round((values[k] - low) * scale)));
    pixels.set(colours[level], 4 * k);
    pixels[4 * k + 3] = 255;
  }
  return pixels;
}

/** Network input (C, H, W) as pixels, RGBA, by the mean and deviation that it was made with. */
export function asPixels(values, side, mean, std) {
  const pixels = new Uint8ClampedArray(4 * side);
  for (let k = 0; k < side; k++) {
    for (let c = 0; c < 3; c++) {
      const own = c % mean.length;
      pixels[4 * k + c] = (values[own * side + k] * std[own] + mean[own]) * 255;
    }
    pixels[4 * k + 3] = 255;
  }
  return pixels;
}

/** What sways a score: the greatest size of the gradient (C, H, W) over channels, (H, W). */
export function saliency(gradient, side) {
  const most = new Float32Array(side);
  for (let k = 0; k < gradient.length; k++) {
    most[k % side] = Math.max(most[k % side], Math.abs(gradient[k]));
  }
  return most;
}

/** Where the border of what is sampled lies on a picture: corners [x, y], shares of its sides.
 * @param {ArrayLike<number>} theta 2x3, from places in [-1, 1] to places in [-1, 1] */
export function frameOf(theta) {
  return [[-1, -1], [1, -1], [1, 1], [-1, 1]].map(([x, y]) => [
    (theta[0] * x + theta[1] * y + theta[2] + 1) / 2,
    (theta[3] * x + theta[4] * y + theta[5] + 1) / 2,
  ]);
}

/** A step towards a class: up the gradient by a length, within what pixels can be and a reach.
 * @param {{image: Float32Array, original: Float32Array, gradient: Float32Array}} state
 * @param {{length: number, reach: number, mean: number[], std: number[]}} how */
export function foolingStep({ image, original, gradient }, { length, reach, mean, std }) {
  const side = image.length / mean.length;
  const limits = Array.from(image, (_, k) => {
    const c = Math.floor(k / side);
    const black = -mean[c] / std[c], white = (1 - mean[c]) / std[c], far = reach * (white - black);
    return [Math.max(original[k] - far, black), Math.min(original[k] + far, white)];
  });
  const free = gradient.map((slope, k) => (slope > 0 ? image[k] < limits[k][1] : image[k] > limits[k][0]) ? slope : 0);
  const norm = Math.hypot(...free) + 1e-12;
  return image.map((value, k) => Math.min(limits[k][1], Math.max(limits[k][0], value + (length * free[k]) / norm)));
}

/** A size that fits into a square, never larger than it is. @returns {[number, number]} */
export function fitted(width, height, most) {
  const scale = Math.min(1, most / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

/** A class's name as it is read: without its number, with spaces. */
export function plainName(name) {
  return name.replace(/^\d+_/, "").replaceAll("_", " ");
}

/** A box with a margin around it, in whole pixels; of its sides a share, and the least. @param {number[]} box left, top, right, bottom */
export function widened([left, top, right, bottom], margin, least) {
  const [x, y] = [right - left, bottom - top].map((side) => Math.max(least, margin * side));
  return [left - x, top - y, right + x, bottom + y].map(Math.round);
}

/** A colour of a class that white letters can be read on: hues far apart, all dark. */
export function boxColour(label) {
  return `hsl(${Math.round((label * 137.5 + 330) % 360)} 75% 32%)`;
}

/** Labels as pixels to lay over a picture. @param {Uint8Array} labels @param {number[][]} colours
 * @param {number} opacity @param {Set<number>} hidden labels that are left out */
export function labelPixels(labels, colours, opacity, hidden) {
  const pixels = new Uint8ClampedArray(4 * labels.length);
  for (let k = 0; k < labels.length; k++) {
    const colour = colours[labels[k]];
    if (hidden.has(labels[k])) continue;
    pixels[4 * k] = colour[0];
    pixels[4 * k + 1] = colour[1];
    pixels[4 * k + 2] = colour[2];
    pixels[4 * k + 3] = 255 * opacity;
  }
  return pixels;
}

/** Shares of labels, the greatest first: [label, share], of those there are. */
export function sharesOf(labels, count) {
  const counts = new Array(count).fill(0);
  for (const label of labels) counts[label] += 1;
  return greatest(counts, count).filter((label) => counts[label]).map((label) => [label, counts[label] / labels.length]);
}

/** Pixels of three values with a fourth: opaque. @param {Uint8Array} pixels */
export function opaque(pixels) {
  const whole = new Uint8ClampedArray((pixels.length / 3) * 4);
  for (let k = 0, j = 0; k < pixels.length; k += 3, j += 4) {
    whole[j] = pixels[k];
    whole[j + 1] = pixels[k + 1];
    whole[j + 2] = pixels[k + 2];
    whole[j + 3] = 255;
  }
  return whole;
}

/** The first frames of a clip, the last of them held to its end. */
export function held(frames, count) {
  return frames.map((_, k) => frames[Math.min(k, count - 1)]);
}

/** Numbers in [0, 1) from a seed (mulberry32). @returns {() => number} */
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

/** Things in an order that a seed says. */
export function shuffled(things, seed) {
  const order = [...things], next = generator(seed);
  for (let k = order.length - 1; k > 0; k--) {
    const other = Math.floor(next() * (k + 1));
    [order[k], order[other]] = [order[other], order[k]];
  }
  return order;
}

/** Normal noise from a seed (Box and Muller 1958). @returns {Float32Array} */
export function noise(count, seed) {
  const next = generator(seed), values = new Float32Array(count);
  for (let k = 0; k < count; k += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - next())), angle = 2 * Math.PI * next();
    values[k] = radius * Math.cos(angle);
    if (k + 1 < count) values[k + 1] = radius * Math.sin(angle);
  }
  return values;
}
