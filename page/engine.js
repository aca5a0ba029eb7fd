// What runs in the worker, behind the runtime, which it knows as `ort`: networks by name.
// Each message {id, call, ...} is answered by {id, ...} or {id, error}.
"use strict";
const networks = {};
let weights;

const CALLS = {
  async start({ wasm, weights: body }) {
    weights = body;
    ort.env.wasm.wasmBinary = wasm;
    ort.env.wasm.numThreads = 1;
    ort.env.logLevel = "error";
    return {};
  },

  /** Have a network of a graph. */
  async open({ name, graph }) {
    const externalData = [{ path: "weights", data: weights }];
    networks[name] = await ort.InferenceSession.create(graph, { externalData });
    return {};
  },

  /** Run a network: inputs and outputs {name: {type, data, dims}}. */
  async run({ name, inputs }) {
    const feeds = {};
    for (const [key, { type, data, dims }] of Object.entries(inputs)) {
      feeds[key] = new ort.Tensor(type, data, dims);
    }
    const begun = performance.now();
    const answers = await networks[name].run(feeds);
    const outputs = {};
    for (const [key, { type, data, dims }] of Object.entries(answers)) {
      outputs[key] = { type, data, dims: Array.from(dims) };
    }
    return { outputs, milliseconds: performance.now() - begun };
  },
};

self.onmessage = async ({ data }) => {
  try {
    self.postMessage({ id: data.id, ...(await CALLS[data.call](data)) });
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error?.message ?? error) });
  }
};
