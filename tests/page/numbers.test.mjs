// What page/numbers.mjs computes: node --test tests/page
import assert from "node:assert/strict";
import test from "node:test";
import * as numbers from "../../page/numbers.mjs";

const close = (own, other, most = 1e-6) => assert.ok(Math.abs(own - other) <= most, `${own} ${other}`);

test("planes: bytes of every four at their places", () => {
  assert.deepEqual([...numbers.interleaved(Uint8Array.of(1, 5, 2, 6, 3, 7, 4, 8))], [1, 2, 3, 4, 5, 6, 7, 8]);
});

test("softmax: shares that add up, of scores of any size", () => {
  const shares = numbers.softmax([1000, 1001, 1002]);
  close(shares.reduce((a, b) => a + b), 1);
  close(shares[2] / shares[1], Math.E, 1e-9);
  assert.deepEqual(numbers.greatest([3, 9, 1, 7], 2), [1, 3]);
});

test("quantile and colours: limits are the ends of a ramp", () => {
  assert.equal(numbers.quantile([5, 1, 3, 2, 4], 0.99), 5);
  assert.equal(numbers.quantile([5, 1, 3, 2, 4], 0.4), 3);
  assert.equal(numbers.quantile([5, 1, 3, 2, 4], 0.5), 3);
  const between = numbers.coloured([1, 2, 3], 1, 3, "hot");
  assert.deepEqual([...between.slice(0, 3), ...between.slice(8, 11)], [0x0b, 0, 0, 255, 255, 255]);
  const pixels = numbers.coloured([-1, 0, 2, 9], 0, 2, "viridis");
  assert.deepEqual([...pixels.slice(0, 4)], [0x44, 0x01, 0x54, 255]);
  assert.deepEqual([...pixels.slice(0, 4)], [...pixels.slice(4, 8)]);
  assert.deepEqual([...pixels.slice(8, 11)], [0xfd, 0xe7, 0x25]);
  for (const name of ["viridis", "hot", "balance"]) assert.equal(numbers.ramp(name).length, 256);
});

test("pixels of network input, grey ones three times", () => {
  const colour = numbers.asPixels(Float32Array.of(-1, 1, 0, 0, 1, -1), 2, [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]);
  assert.deepEqual([...colour], [0, 128, 255, 255, 255, 128, 0, 255]);
  assert.deepEqual([...numbers.asPixels(Float32Array.of(1), 1, [0.2], [0.4])], [153, 153, 153, 255]);
});

test("saliency: the greatest size over channels", () => {
  const most = numbers.saliency(Float32Array.of(1, -2, -3, 0.5, 0, 2.5), 2);
  assert.deepEqual([...most], [3, 2.5]);
});

test("a frame: the identity is the whole picture, half the scale its middle", () => {
  assert.deepEqual(numbers.frameOf([1, 0, 0, 0, 1, 0]), [[0, 0], [1, 0], [1, 1], [0, 1]]);
  assert.deepEqual(numbers.frameOf([0, -1, 0, 1, 0, 0]), [[1, 0], [1, 1], [0, 1], [0, 0]]); // a quarter turned
  assert.deepEqual(numbers.frameOf([0.5, 0, 0.5, 0, 0.5, 0])[0], [0.5, 0.25]);
});

test("a fooling step: of its length, and within its reach", () => {
  const original = Float32Array.of(0, 0, 0.95), gradient = Float32Array.of(3, -4, 0);
  const how = { length: 0.1, reach: 0.099, mean: [0.5], std: [0.5] };
  const image = numbers.foolingStep({ image: original, original, gradient }, how);
  close(image[0], 0.06);
  close(image[1], -0.08);
  const far = numbers.foolingStep({ image: original, original, gradient }, { ...how, length: 9 });
  close(far[0], 0.198);
  close(far[1], -0.198);
  const white = numbers.foolingStep({ image: original, original, gradient: Float32Array.of(0, 0, 1) }, { ...how, length: 9 });
  assert.equal(white[2], 1); // no pixel is whiter than white
  const edges = Float32Array.of(1, -0.95, 0), slopes = Float32Array.of(5, 0, 1);
  close(numbers.foolingStep({ image: edges, original: edges, gradient: slopes }, how)[2], 0.1); // what cannot move takes no share
  const black = numbers.foolingStep({ image: edges, original: edges, gradient: Float32Array.of(0, -1, 0) }, { ...how, length: 9 });
  assert.equal(black[1], -1);
});

test("sizes and names", () => {
  assert.deepEqual(numbers.fitted(4000, 2000, 640), [640, 320]);
  assert.deepEqual(numbers.fitted(40, 30, 640), [40, 30]);
  assert.deepEqual(numbers.fitted(9000, 2, 640), [640, 1]);
  assert.equal(numbers.plainName("06_speed_limit_100"), "speed limit 100");
});

test("labels: colours where they are shown, shares in order", () => {
  const pixels = numbers.labelPixels(Uint8Array.of(0, 1, 1), [[1, 2, 3], [4, 5, 6]], 0.6, new Set([0]));
  assert.deepEqual([...pixels], [0, 0, 0, 0, 4, 5, 6, 153, 4, 5, 6, 153]);
  assert.deepEqual(numbers.sharesOf(Uint8Array.of(2, 2, 0, 2), 4), [[2, 0.75], [0, 0.25]]);
});

test("boxes with a margin; every class has a colour", () => {
  assert.deepEqual(numbers.widened([10, 20, 30, 60], 0.1, 1), [8, 16, 32, 64]);
  assert.deepEqual(numbers.widened([10, 10, 26, 30], 0.1, 5), [5, 5, 31, 35]);
  assert.equal(new Set(Array.from({ length: 43 }, (_, k) => numbers.boxColour(k))).size, 43);
  assert.deepEqual([...numbers.opaque(Uint8Array.of(1, 2, 3, 4, 5, 6))], [1, 2, 3, 255, 4, 5, 6, 255]);
});

test("frames so far, and in an order that a seed says", () => {
  assert.deepEqual(numbers.held(["a", "b", "c", "d"], 2), ["a", "b", "b", "b"]);
  const things = Array.from({ length: 16 }, (_, k) => k);
  assert.deepEqual(numbers.shuffled(things, 3), numbers.shuffled(things, 3));
  assert.notDeepEqual(numbers.shuffled(things, 3), numbers.shuffled(things, 4));
  assert.deepEqual(numbers.shuffled(things, 3).toSorted((a, b) => a - b), things);
});

test("noise: of mean 0 and deviation 1, the same of a seed", () => {
  const values = numbers.noise(20001, 7);
  const mean = values.reduce((a, b) => a + b) / values.length;
  const square = values.reduce((a, b) => a + b * b, 0) / values.length;
  assert.ok(Math.abs(mean) < 0.03 && Math.abs(square - 1) < 0.04, `${mean} ${square}`);
  assert.deepEqual(numbers.noise(5, 7), values.slice(0, 5));
  assert.notDeepEqual(numbers.noise(5, 8), values.slice(0, 5));
});

test("orders and noise: every order comes, and no value tells the next", () => {
  const orders = new Set(Array.from({ length: 60 }, (_, seed) => numbers.shuffled(["a", "b", "c"], seed).join("")));
  assert.equal(orders.size, 6);
  const values = numbers.noise(10000, 3);
  let together = 0;
  for (let k = 0; k < values.length; k += 2) together += (values[k] * values[k + 1]) / 5000;
  close(together, 0, 0.06);
});
