// What an exported file says about itself: the JSON document under the name
// "mobilevit_jax" (docs/on_device.md), found without the engine's help.

const NAME = "mobilevit_jax";
const FORMAT = 1; // of the document
const text = new TextDecoder();

// Fields of a protocol buffer's message, [number, bytes], those of bytes only.
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      value += (byte & 127) * 2 ** shift;
      if (!(byte & 128)) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    const kind = key & 7;
    if (kind === 2) {
      const length = varint();
      yield [Math.floor(key / 8), bytes.subarray(at, at + length)];
      at += length;
    } else if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else throw new RangeError("This is no message.");
  }
}

// ModelProto.metadata_props is field 14, of messages of a key and a value.
function ofOnnx(bytes) {
  for (const [number, entry] of fields(bytes)) {
    if (number !== 14) continue;
    const pair = new Map(fields(entry));
    if (text.decode(pair.get(1)) === NAME) return text.decode(pair.get(2));
  }
  return "";
}

// Model.buffers and Model.metadata are fields 4 and 6 of the root table.
function ofLiteRT(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const follow = (at) => at + view.getUint32(at, true);
  const field = (table, number) => {
    const vtable = table - view.getInt32(table, true);
    const entry = 4 + 2 * number;
    if (entry >= view.getUint16(vtable, true)) return 0;
    const offset = view.getUint16(vtable + entry, true);
    return offset && table + offset;
  };
  const items = (at) => {
    if (!at) return [];
    const vector = follow(at);
    const count = view.getUint32(vector, true);
    return Array.from({ length: count }, (_, i) => follow(vector + 4 + 4 * i));
  };
  const string = (at) => {
    const vector = follow(at);
    const length = view.getUint32(vector, true);
    return text.decode(bytes.subarray(vector + 4, vector + 4 + length));
  };
  const model = follow(0);
  for (const entry of items(field(model, 6)))
    if (string(field(entry, 0)) === NAME) {
      const index = view.getUint32(field(entry, 1), true);
      return string(field(items(field(model, 4))[index], 0));
    }
  return "";
}

/** "onnx" or "litert": a flatbuffer has its kind's name after four bytes. */
export function formatOf(bytes) {
  return text.decode(bytes.subarray(4, 8)) === "TFL3" ? "litert" : "onnx";
}

/** The document of a file's bytes; throws where there is none that we know. */
export function read(bytes) {
  let found = "";
  try {
    found = formatOf(bytes) === "litert" ? ofLiteRT(bytes) : ofOnnx(bytes);
  } catch (error) {
    if (!(error instanceof RangeError || error instanceof TypeError))
      throw error;
  }
  const document = found ? JSON.parse(found) : {};
  if (document.format !== FORMAT)
    throw new Error(
      "The file doesn't say how it is used. This page takes .onnx and .tflite " +
        "files that this version of mobilevit_jax has exported.",
    );
  return document;
}
