// From words to numbers (CLIP's tokenizer), and from noise to latents step by step (DDIM, Song et al. 2021).

const NOISED = 1000; // steps of the noise that a network was trained with
const PIECE = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/giu;

/** Tokens of a text: start, pieces, end, and ends until there are so many.
 * @param {{vocab: Record<string, number>, merges: string[][], start: number, end: number}} tokenizer */
export function tokens(text, { vocab, merges, start, end }, length) {
  const ranks = new Map(merges.map((pair, k) => [pair.join(" "), k]));
  const pieces = (text.normalize("NFC").toLowerCase().match(PIECE) ?? []).flatMap((word) => merged(word, ranks));
  const ids = pieces.map((piece) => vocab[piece] ?? end).slice(0, length - 2);
  return [start, ...ids, ...Array(length - 1 - ids.length).fill(end)];
}

/** Pieces of a word: its letters, merged pair by pair, the pair that was learned first before others. */
function merged(word, ranks) {
  const pieces = [...word];
  pieces[pieces.length - 1] += "</w>";
  for (;;) {
    let best = -1, rank = Infinity;
    for (let k = 0; k + 1 < pieces.length; k++) {
      const own = ranks.get(`${pieces[k]} ${pieces[k + 1]}`) ?? Infinity;
      if (own < rank) [best, rank] = [k, own];
    }
    if (best < 0) return pieces;
    const [left, right] = [pieces[best], pieces[best + 1]];
    for (let k = 0; k + 1 < pieces.length; k++) {
      if (pieces[k] === left && pieces[k + 1] === right) pieces.splice(k, 2, left + right);
    }
  }
}

/** Words of a text that were never learned, each once. @param {string[]} words those that were */
export function unknownWords(text, words) {
  const known = new Set(words);
  return [...new Set((text.toLowerCase().match(/\p{L}+|\p{N}/gu) ?? []).filter((word) => !known.has(word)))];
}

/** The nearest whole number; of two, the even one, as NumPy has it. */
function rounded(value) {
  const up = Math.round(value);
  return up - value === 0.5 && up % 2 ? up - 1 : up;
}

/** Times of a number of steps, from all noise on, evenly. @returns {number[]} */
export function timesteps(steps) {
  return Array.from({ length: steps }, (_, k) => rounded(NOISED - (k * NOISED) / steps) - 1);
}

/** What the words add to nothing, so many times: predictions of nothing, then those of the words. */
export function guided(predictions, size, guidance) {
  if (predictions.length === size) return predictions;
  return Float32Array.from({ length: size }, (_, k) => predictions[k] + guidance * (predictions[size + k] - predictions[k]));
}

/** A step: what there is after it, and what it would be without noise.
 * @param {{alphas: number[], prediction: string}} scheduler alphas: shares of the picture at each time */
export function step(latents, prediction, time, steps, { alphas, prediction: kind }) {
  const share = alphas[time], before = time - Math.floor(NOISED / steps), next = before >= 0 ? alphas[before] : 1;
  const [a, b, c, d] = [share, 1 - share, next, 1 - next].map(Math.sqrt);
  const clean = new Float32Array(latents.length), after = new Float32Array(latents.length);
  for (let k = 0; k < latents.length; k++) {
    const velocity = kind === "v_prediction";
    const picture = velocity ? a * latents[k] - b * prediction[k] : (latents[k] - b * prediction[k]) / a;
    const noise = velocity ? a * prediction[k] + b * latents[k] : prediction[k];
    clean[k] = picture;
    after[k] = c * picture + d * noise;
  }
  return { latents: after, clean };
}
