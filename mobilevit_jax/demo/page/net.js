// An exported file in the engine of its format: onnxruntime-web or LiteRT.js.
// Both lie in engines/, beside this page: nothing comes from another server.

import { formatOf, read } from "./metadata.js";
import { asInput, prepare } from "./preprocess.js";

const ENGINES = new URL("engines/", import.meta.url);
export const NAMES = { onnx: "onnxruntime-web", litert: "LiteRT.js" };

const loaders = {
  async onnx(bytes, device) {
    const folder = new URL("onnxruntime-web/", ENGINES);
    const name =
      device === "webgpu" ? "ort.webgpu.min.mjs" : "ort.wasm.min.mjs";
    const ort = await import(new URL(name, folder));
    ort.env.wasm.wasmPaths = folder.href;
    // More need headers that a plain web server doesn't send.
    ort.env.wasm.numThreads = 1;
    const session = await ort.InferenceSession.create(bytes, {
      executionProviders: [device],
    });
    return {
      async run(type, values, shape) {
        const images = new ort.Tensor(type, values, shape);
        const found = await session.run({ images });
        const outputs = {};
        for (const [key, { data, dims }] of Object.entries(found))
          outputs[key] = { data, shape: dims };
        return outputs;
      },
      close: () => session.release(),
    };
  },

  async litert(bytes, device) {
    const folder = new URL("litert/", ENGINES);
    const litert = await import(new URL("index.js", folder));
    // Once for all files.
    if (!litert.getGlobalLiteRtPromise()) litert.loadLiteRt(folder.href);
    await litert.getGlobalLiteRtPromise();
    const model = await litert.loadAndCompile(bytes, { accelerator: device });
    return {
      partly: !model.isFullyAccelerated,
      async run(type, values, shape) {
        const images = new litert.Tensor(values, shape);
        const found = await model.run({ images });
        images.delete();
        const outputs = {};
        for (const [key, tensor] of Object.entries(found)) {
          const here = await tensor.moveTo("wasm");
          const shape = [...here.type.layout.dimensions];
          outputs[key] = { data: here.toTypedArray().slice(), shape };
          here.delete();
        }
        return outputs;
      },
      close: () => model.delete(),
    };
  },
};

/** Whether the browser has WebGPU, and an adapter for it. */
export async function hasWebGPU() {
  try {
    return Boolean(await navigator.gpu?.requestAdapter());
  } catch {
    return false;
  }
}

/**
 * Loads a file.
 *
 * @param {Uint8Array} bytes of the file
 * @param {"wasm" | "webgpu"} device
 * @returns an object with the file's `document`, and `look`
 */
export async function load(bytes, device = "wasm") {
  const document = read(bytes);
  const format = formatOf(bytes);
  let engine;
  try {
    engine = await loaders[format](bytes, device);
  } catch (error) {
    if (error instanceof TypeError && error.message.includes("import"))
      throw new Error(
        `${NAMES[format]} is not in this folder, which has the engine of its ` +
          "own file alone. `mobilevit demo` serves both.",
      );
    throw new Error(`${NAMES[format]} can't load the file: ${error.message}`);
  }
  const { type, shape } = document.input;
  const batch = shape[0] ?? 1;
  return {
    document,
    format,
    device,
    partly: engine.partly ?? false,
    close: engine.close,
    /** What the file answers to an image of RGB pixels, and milliseconds. */
    async look(image) {
      const start = performance.now();
      const seen = prepare(image, document.preprocessing);
      const values = asInput(seen, type, batch);
      const prepared = performance.now();
      const outputs = await engine.run(type, values, [
        batch,
        ...shape.slice(1),
      ]);
      const done = performance.now();
      return {
        outputs,
        seen,
        ms: { prepare: prepared - start, run: done - prepared },
      };
    },
  };
}
