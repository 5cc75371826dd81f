// From a photograph's pixels to what the net sees, as evaluation prepares it.
//
// Pixels are {data, width, height}: RGB, a byte each. How is the entry
// "preprocessing" of the file's metadata:
//   resize: "crop", the shorter side to `shorter_side` pixels and then the
//     centre's `size` x `size`; or "stretch", all of it to `size` x `size`
//   interpolation: "bilinear", or "bicubic"
//   antialias: whether it smooths where it shrinks. Evaluation does not by
//     OpenCV, and does by Pillow.
//
// The arithmetic is that of Python's libraries, in integers, so that both see
// the same pixels, not nearly the same: half a level of 255 in each pixel
// moves a probability by more than all that the engines differ by.

// An image longer than this many times its shorter side is cut to it first;
// of a line of one pixel a resize would else make gigabytes.
const LONGEST = 8;

// Python's round(): a half goes to the even side.
function roundHalfEven(x) {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 ? low + 1 : low;
}

// The centre's part of so many pixels, or all of a side that has fewer.
function centre({ data, width, height }, toWidth, toHeight, whole) {
  const left = whole((width - toWidth) / 2);
  const top = whole((height - toHeight) / 2);
  const cut = new Uint8ClampedArray(3 * toWidth * toHeight);
  for (let y = 0; y < toHeight; y++) {
    const start = 3 * ((top + y) * width + left);
    cut.set(data.subarray(start, start + 3 * toWidth), 3 * y * toWidth);
  }
  return { data: cut, width: toWidth, height: toHeight };
}

// OpenCV's INTER_LINEAR along one axis: two places and their shares in 2048ths
// for each pixel of the result (`resize.cpp`; its places are float32).
function linearTaps(from, to) {
  const scale = 1 / (to / from);
  const taps = [];
  for (let i = 0; i < to; i++) {
    let share = Math.fround((i + 0.5) * scale - 0.5);
    const low = Math.floor(share);
    share = Math.fround(share - low);
    taps.push({
      low,
      shares: [
        roundHalfEven(Math.fround(1 - share) * 2048),
        roundHalfEven(share * 2048),
      ],
    });
  }
  return taps;
}

function resizeOpenCV(image, width, height) {
  const from = image.data;
  const stride = 3 * image.width;
  const result = new Uint8ClampedArray(3 * width * height);
  if (image.width === 2 * width && image.height === 2 * height) {
    // Half of the size exactly: the mean of four, rounded up.
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        for (let c = 0; c < 3; c++) {
          const i = 2 * y * stride + 6 * x + c;
          const sum =
            from[i] + from[i + 3] + from[i + stride] + from[i + stride + 3];
          result[3 * (y * width + x) + c] = (sum + 2) >> 2;
        }
    return { data: result, width, height };
  }
  const columns = linearTaps(image.width, width);
  const rows = linearTaps(image.height, height);
  const last = image.width - 1;
  // Each row of the image, resized to the width; kept, since two rows of the
  // result mostly need the same.
  const made = new Map();
  const row = (y) => {
    y = Math.min(Math.max(y, 0), image.height - 1);
    if (!made.has(y)) {
      const line = new Int32Array(3 * width);
      columns.forEach(({ low, shares }, x) => {
        // Beyond the edge there is the edge's pixel, with all of the weight.
        const outside = low < 0 || low >= last;
        const at = y * stride + 3 * Math.min(Math.max(low, 0), last);
        for (let c = 0; c < 3; c++)
          line[3 * x + c] = outside
            ? from[at + c] * 2048
            : from[at + c] * shares[0] + from[at + 3 + c] * shares[1];
      });
      made.set(y, line);
    }
    return made.get(y);
  };
  rows.forEach(({ low, shares: [a, b] }, y) => {
    const above = row(low);
    const below = row(low + 1);
    for (const old of made.keys()) if (old < low) made.delete(old);
    for (let i = 0; i < 3 * width; i++) {
      const sum = ((a * (above[i] >> 4)) >> 16) + ((b * (below[i] >> 4)) >> 16);
      result[3 * y * width + i] = (sum + 2) >> 2;
    }
  });
  return { data: result, width, height };
}

const KERNELS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    at(x) {
      const a = -0.5; // Pillow's; others take -0.75
      x = Math.abs(x);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
      return 0;
    },
  },
};
const BITS = 22; // of Pillow's fixed point (`Resample.c`)

// Pillow's resample along one axis: the first place, and weights from there on.
function smoothTaps(from, to, kernel) {
  const scale = from / to;
  const wide = Math.max(scale, 1);
  const support = kernel.support * wide;
  const taps = [];
  for (let i = 0; i < to; i++) {
    const middle = (i + 0.5) * scale;
    const low = Math.max(Math.trunc(middle - support + 0.5), 0);
    const high = Math.min(Math.trunc(middle + support + 0.5), from);
    const weights = [];
    for (let k = low; k < high; k++)
      weights.push(kernel.at((k - middle + 0.5) * (1 / wide)));
    const sum = weights.reduce((total, w) => total + w, 0);
    const fixed = weights.map((w) => {
      const x = (w / sum) * 2 ** BITS;
      return Math.trunc(x < 0 ? x - 0.5 : x + 0.5);
    });
    taps.push({ low, weights: fixed });
  }
  return taps;
}

// Along x, or along y; `lines` x `pixels` with steps in bytes from one to the
// next. Sums stay below 2^53, so doubles are as good as integers.
function resample(from, to, taps, lines, lineStep, step, toLine, toStep) {
  for (let line = 0; line < lines; line++)
    taps.forEach(({ low, weights }, i) => {
      for (let c = 0; c < 3; c++) {
        let sum = 2 ** (BITS - 1);
        let at = line * lineStep + low * step + c;
        for (const weight of weights) {
          sum += from[at] * weight;
          at += step;
        }
        // (The array clamps what bicubic weights overshoot.)
        to[line * toLine + i * toStep + c] = Math.floor(sum / 2 ** BITS);
      }
    });
}

function resizePillow(image, width, height, kernel) {
  const across = ({ data, width: from, height: lines }) => {
    // A side that stays is left alone, as in Pillow.
    if (width === from) return { data, width, height: lines };
    const wide = new Uint8ClampedArray(3 * width * lines);
    const taps = smoothTaps(from, width, kernel);
    resample(data, wide, taps, lines, 3 * from, 3, 3 * width, 3);
    return { data: wide, width, height: lines };
  };
  const down = ({ data, width: lines, height: from }) => {
    if (height === from) return { data, width: lines, height };
    const high = new Uint8ClampedArray(3 * lines * height);
    const taps = smoothTaps(from, height, kernel);
    resample(data, high, taps, lines, 3, 3 * lines, 3, 3 * lines);
    return { data: high, width: lines, height };
  };
  // Levels are rounded after each pass, so their order shows. Pillow 13 goes
  // down first where an image of more than twice its width shrinks (found by
  // trying; earlier ones always went across first).
  if (image.height > 2 * image.width && height < image.height)
    return across(down(image));
  return down(across(image));
}

function resize(image, width, height, { interpolation, antialias }) {
  if (width === image.width && height === image.height) return image;
  if (antialias && interpolation in KERNELS)
    return resizePillow(image, width, height, KERNELS[interpolation]);
  if (!antialias && interpolation === "bilinear")
    return resizeOpenCV(image, width, height);
  const smooth = antialias ? "with" : "without";
  throw new Error(
    `This page can't resize by ${interpolation} ${smooth} antialiasing.`,
  );
}

/** The pixels that the net sees, `size` x `size`. */
export function prepare(image, how) {
  const { size, shorter_side: shorter } = how;
  if (how.resize === "stretch") return resize(image, size, size, how);
  if (how.resize !== "crop")
    throw new Error(`This page can't prepare images by "${how.resize}".`);
  // Pillow's users round half a pixel of a long image to the even side, and
  // torchvision, whose crop is bicubic, that of the crop as well.
  const cut = how.antialias ? roundHalfEven : Math.floor;
  const end = how.interpolation === "bicubic" ? roundHalfEven : Math.floor;
  const longest = LONGEST * Math.min(image.width, image.height);
  if (Math.max(image.width, image.height) > longest) {
    const sides = [image.width, image.height].map((n) => Math.min(n, longest));
    image = centre(image, ...sides, cut);
  }
  const { width, height } = image;
  // The longer side is cut to whole pixels, not rounded.
  const [toWidth, toHeight] =
    width < height
      ? [shorter, Math.floor((shorter * height) / width)]
      : [Math.floor((shorter * width) / height), shorter];
  return centre(resize(image, toWidth, toHeight, how), size, size, end);
}

/** The part of the image that the net sees: {left, top, width, height}. */
export function seen({ width, height }, how) {
  if (how.resize === "stretch") return { left: 0, top: 0, width, height };
  const side = (Math.min(width, height) * how.size) / how.shorter_side;
  const [left, top] = [(width - side) / 2, (height - side) / 2];
  return { left, top, width: side, height: side };
}

/** What the file takes: pixels, or float32 in [0, 1]; `batch` images. */
export function asInput({ data }, type, batch) {
  const [Values, scale] =
    type === "uint8" ? [Uint8Array, 1] : [Float32Array, 255];
  const values = new Values(batch * data.length); // the others are black
  for (let i = 0; i < data.length; i++) values[i] = data[i] / scale;
  return values;
}

/** RGB of RGBA, such as a canvas gives. */
export function rgbOf({ data, width, height }) {
  const rgb = new Uint8ClampedArray(3 * width * height);
  for (let from = 0, to = 0; from < data.length; from += 4, to += 3) {
    rgb[to] = data[from];
    rgb[to + 1] = data[from + 1];
    rgb[to + 2] = data[from + 2];
  }
  return { data: rgb, width, height };
}
