// What a net sees, drawn over the photograph.

import { seen } from "./preprocess.js";

const DRAWN = 0.3; // score from which a box is drawn
const OPACITY = 0.6; // of a mask's colours

// Pascal VOC's colours: the bits of a class, three by three from the lowest,
// are the bits of red, green and blue from the highest.
export function maskColour(label) {
  const rgb = [0, 0, 0];
  for (let place = 0; place < 8; place++)
    rgb[place % 3] |= ((label >> place) & 1) << (7 - Math.floor(place / 3));
  return rgb;
}

export function boxColour(label) {
  return `hsl(${((label * 0.618) % 1) * 360} 85% 40%)`;
}

/** A canvas of RGB pixels. */
export function canvasOf({ data, width, height }) {
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(width, height);
  for (let from = 0, to = 0; from < data.length; from += 3, to += 4) {
    image.data[to] = data[from];
    image.data[to + 1] = data[from + 1];
    image.data[to + 2] = data[from + 2];
    image.data[to + 3] = 255;
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}

function veil({ data, width, height }) {
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(width, height);
  data.forEach((label, i) => {
    if (label === 0) return; // the background hides nothing
    image.data.set([...maskColour(label), 255 * OPACITY], 4 * i);
  });
  pen.putImageData(image, 0, 0);
  return canvas;
}

/** Draws a picture, dimmed where the net doesn't look, and the answer to it. */
export function draw(canvas, picture, { preprocessing }, answer, nameOf) {
  const { width, height } = picture;
  // Small images are enlarged, so that lines and names are fine; a large one
  // is shown smaller than it is.
  const scale = Math.min(960 / Math.max(width, height), 40);
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = scale < 4;
  pen.imageSmoothingQuality = "high";
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  const area = seen(picture, preprocessing);
  const [left, top, wide, high] = [
    area.left,
    area.top,
    area.width,
    area.height,
  ].map((x) => x * scale);
  if (area.width < width || area.height < height) {
    pen.fillStyle = "rgb(0 0 0 / 45%)";
    pen.beginPath();
    pen.rect(0, 0, canvas.width, canvas.height);
    pen.rect(left, top, wide, high);
    pen.fill("evenodd");
  }
  if (answer.task === "segment") {
    pen.imageSmoothingEnabled = false;
    pen.drawImage(veil(answer.mask), left, top, wide, high);
  }
  if (answer.task !== "detect") return;
  pen.font = "600 15px system-ui, sans-serif";
  pen.textBaseline = "middle";
  pen.lineWidth = 3;
  // The surest are drawn last, above the others.
  const drawn = answer.detections.filter(({ score }) => score >= DRAWN);
  for (const { box, score, label } of drawn.reverse()) {
    const [x0, x1] = [left + box[0] * wide, left + box[2] * wide];
    const [y0, y1] = [top + box[1] * high, top + box[3] * high];
    pen.strokeStyle = pen.fillStyle = boxColour(label);
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    const text = `${nameOf(label)} ${Math.round(100 * score)} %`;
    const over = Math.max(y0 - 22, 0);
    pen.fillRect(x0 - 1.5, over, pen.measureText(text).width + 12, 22);
    pen.fillStyle = "white";
    pen.fillText(text, x0 + 4, over + 11.5);
  }
}

export { DRAWN };
