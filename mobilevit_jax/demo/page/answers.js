// What a file's outputs mean: classes, a mask, or boxes; and how far two
// answers to one image are apart.

function softmax(logits) {
  let largest = -Infinity;
  for (const value of logits) largest = Math.max(largest, value);
  const powers = Float64Array.from(logits, (x) => Math.exp(x - largest));
  const sum = powers.reduce((total, x) => total + x, 0);
  return powers.map((x) => x / sum);
}

// The likeliest class of each pixel, of `[h, w, k]` logits.
function largest(logits, k) {
  const mask = new Uint8Array(logits.length / k);
  for (let i = 0; i < mask.length; i++) {
    let best = 0;
    for (let c = 1; c < k; c++)
      if (logits[i * k + c] > logits[i * k + best]) best = c;
    mask[i] = best;
  }
  return mask;
}

function overlap(a, b) {
  const side = (i) =>
    Math.max(Math.min(a[i + 2], b[i + 2]) - Math.max(a[i], b[i]), 0);
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  const both = side(0) * side(1);
  const union = area(a) + area(b) - both;
  return union > 0 ? both / union : 0;
}

/**
 * The detections of one image, the surest first, as docs/on_device.md says.
 *
 * @param boxes `[n, 4]` of x0, y0, x1, y1, as parts of the image
 * @param scores `[n, k]`, of each class of objects
 * @param how the metadata's "nms"
 */
export function suppress(boxes, scores, how) {
  const count = boxes.length / 4;
  const k = scores.length / count;
  const box = (i) => boxes.subarray(4 * i, 4 * i + 4);
  const found = [];
  for (let label = 0; label < k; label++) {
    const score = (i) => scores[i * k + label];
    // Sorting is stable: of equal scores the first anchor comes first.
    let rest = Array.from({ length: count }, (_, i) => i)
      .sort((a, b) => score(b) - score(a))
      .slice(0, how.per_class)
      .filter((i) => score(i) > how.threshold);
    while (rest.length) {
      const [best, ...others] = rest;
      found.push({ box: box(best), score: score(best), label });
      rest = others.filter((i) => overlap(box(best), box(i)) <= how.nms_iou);
    }
  }
  found.sort((a, b) => b.score - a.score);
  return found.slice(0, how.most).map((one) => ({
    ...one,
    box: Array.from(one.box, (x) => Math.min(Math.max(x, 0), 1)),
  }));
}

function detections({ boxes, scores, classes }, how) {
  if (!how.in_file) return suppress(boxes.data, scores.data, how);
  const found = [];
  scores.data.forEach((score, i) => {
    if (score > 0) {
      const box = [...boxes.data.subarray(4 * i, 4 * i + 4)];
      found.push({ box, score, label: Number(classes.data[i]) });
    }
  });
  return found;
}

/** From a file's document and outputs to its answer to the first image. */
export function answerOf(document, outputs) {
  const first = ({ data, shape }) => data.subarray(0, data.length / shape[0]);
  const { task } = document;
  if (task === "classify") {
    const { probabilities, logits } = outputs;
    return {
      task,
      probabilities: probabilities
        ? first(probabilities)
        : softmax(first(logits)),
    };
  }
  if (task === "segment") {
    const { mask, logits } = outputs;
    const [height, width, k] = (mask ?? logits).shape.slice(1);
    const classes = mask ? first(mask) : largest(first(logits), k);
    return { task, mask: { data: classes, width, height } };
  }
  if (task === "detect") {
    const one = {};
    for (const [key, output] of Object.entries(outputs))
      one[key] = { ...output, data: first(output) };
    return { task, detections: detections(one, document.nms) };
  }
  throw new Error(
    "The file answers with feature maps, which this page can't draw. Export " +
      "it without --features.",
  );
}

/** The likeliest classes, [{label, probability}]. */
export function top(probabilities, count) {
  return Array.from(probabilities, (probability, label) => ({
    label,
    probability,
  }))
    .sort((a, b) => b.probability - a.probability)
    .slice(0, count);
}

/** Shares of the classes in a mask, the largest first; [{label, share}]. */
export function shares({ data }) {
  const counts = new Map();
  for (const label of data) counts.set(label, (counts.get(label) ?? 0) + 1);
  return [...counts]
    .map(([label, count]) => ({ label, share: count / data.length }))
    .sort((a, b) => b.share - a.share);
}

/**
 * How far an answer is from the exporter's own to the same image.
 *
 * @returns {{same: boolean, text: string, difference: number}} `difference` is
 *   the largest of a probability or score, or the share of other pixels
 */
export function compare(found, expected) {
  if (found.task === "classify") {
    const a = found.probabilities;
    const b = expected.probabilities;
    const difference = a.reduce(
      (most, x, i) => Math.max(most, Math.abs(x - b[i])),
      0,
    );
    const same = top(a, 1)[0].label === top(b, 1)[0].label;
    const what = same ? "the same class" : "another class";
    return {
      same,
      difference,
      text: `${what}, probabilities within ${short(difference)}`,
    };
  }
  if (found.task === "segment") {
    const b = expected.mask.data;
    const others = found.mask.data.reduce((sum, x, i) => sum + (x !== b[i]), 0);
    const difference = others / b.length;
    // Two classes may be as likely up to rounding, in some pixel.
    const same = difference < 1e-3;
    const text = others
      ? `${others} of ${b.length} pixels have another class`
      : "the same class in every pixel";
    return { same, difference, text };
  }
  let difference = 0;
  let missing = 0;
  const left = [...found.detections];
  for (const one of expected.detections) {
    const i = left.findIndex(
      (other) =>
        other.label === one.label && overlap(other.box, one.box) > 0.99,
    );
    if (i < 0) missing++;
    else
      difference = Math.max(
        difference,
        Math.abs(left.splice(i, 1)[0].score - one.score),
      );
  }
  const count = expected.detections.length;
  const same = !missing && !left.length;
  const text = same
    ? `the same ${count} boxes, scores within ${short(difference)}`
    : `${count - missing} of ${count} boxes are the same, ${left.length} are new`;
  return { same, difference, text };
}

function short(x) {
  return x ? x.toExponential(0).replace("e-", "e−") : "0";
}
