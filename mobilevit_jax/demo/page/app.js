// The page: a file, photographs, and what the file answers to them.

import * as answers from "./answers.js";
import { boxColour, draw, DRAWN, maskColour } from "./draw.js";
import { hasWebGPU, load, NAMES } from "./net.js";
import { rgbOf } from "./preprocess.js";

const get = (id) => document.getElementById(id);
const SHOWN = 5; // classes
const TIMED = 20; // runs that the median is of

let folder = { samples: [], engines: [] }; // demo.json
let net = null;
let bytes = null; // of the file
let times = [];
let camera = null; // its stream, while it runs
let shown = null; // the picture on the stage: {image, answer}

function say(text, bad = false) {
  get("status").textContent = text;
  get("status").classList.toggle("bad", bad);
}

function nameOf(label) {
  return net.document.labels?.[label] ?? `class ${label}`;
}

// Pixels of a file as Python reads them: turned as its EXIF says, and no
// colour profile is applied. (Where it is transparent, browsers lose colours.)
async function decode(blob) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
  return createImageBitmap(blob, options);
}

function pixelsOf(picture, width = picture.width, height = picture.height) {
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.drawImage(picture, 0, 0);
  return rgbOf(pen.getImageData(0, 0, width, height));
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}

/** What the net sees in a picture: its answer, and milliseconds. */
async function look(picture) {
  const image = pixelsOf(picture);
  const { outputs, ms } = await net.look(image);
  const answer = answers.answerOf(net.document, outputs);
  times = [...times.slice(1 - TIMED), ms.run];
  return { answer, ms };
}

async function show(picture) {
  const { answer, ms } = await look(picture);
  shown = { picture, answer };
  draw(get("canvas"), picture, net.document, answer, nameOf);
  list(answer);
  const runs = times.length > 1 ? `, median of ${times.length}: ` : "";
  get("run").textContent =
    `${ms.run.toFixed(1)} ms` +
    (runs && `${runs}${median(times).toFixed(1)} ms`);
  get("prepare").textContent = `${ms.prepare.toFixed(1)} ms`;
  return answer;
}

function row(name, share, colour) {
  const item = document.createElement("li");
  const bar = document.createElement("span");
  bar.className = "bar";
  bar.style.width = `${100 * share}%`;
  const label = document.createElement("span");
  if (colour) {
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = colour;
    label.append(swatch);
  }
  label.append(name);
  const number = document.createElement("span");
  number.className = "number";
  number.textContent = `${(100 * share).toFixed(1)} %`;
  item.append(bar, label, number);
  return item;
}

function list(answer) {
  let rows = [];
  if (answer.task === "classify")
    rows = answers
      .top(answer.probabilities, SHOWN)
      .map(({ label, probability }) => row(nameOf(label), probability));
  if (answer.task === "segment")
    rows = answers.shares(answer.mask).map(({ label, share }) => {
      return row(nameOf(label), share, `rgb(${maskColour(label)})`);
    });
  if (answer.task === "detect")
    rows = answer.detections
      .filter(({ score }) => score >= DRAWN)
      .map(({ label, score }) => row(nameOf(label), score, boxColour(label)));
  if (!rows.length) {
    const item = document.createElement("li");
    item.textContent = `No object with a score of ${100 * DRAWN} % or more`;
    rows = [item];
  }
  get("results").replaceChildren(...rows);
}

function agree(text, same) {
  const place = get("agreement");
  place.textContent = text;
  place.className = same === undefined ? "" : same ? "good" : "bad";
}

const NOT_KNOWN = "known of the samples alone";

async function showPhotograph(blob) {
  stopCamera();
  press(null);
  await show(await decode(blob));
  agree(NOT_KNOWN);
  say("Ready.");
}

function press(button) {
  for (const other of get("samples").children)
    other.setAttribute("aria-pressed", other === button);
}

// A sample's stored answer; a mask is a grey PNG whose levels are the classes.
async function expectedOf(sample) {
  const { answer } = sample;
  if (answer?.task !== "segment") return answer;
  const { data, width, height } = pixelsOf(
    await decode(await fetched(answer.mask)),
  );
  const mask = new Uint8Array(width * height).map((_, i) => data[3 * i]);
  return { task: "segment", mask: { data: mask, width, height } };
}

async function fetched(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: ${response.statusText}`);
  return response.blob();
}

async function showSample(sample) {
  stopCamera();
  press(sample.button);
  const answer = await show(await decode(await fetched(sample.file)));
  const expected = await expectedOf(sample);
  if (!expected || bytes !== folder.bytes) {
    agree(expected ? "another file is open" : "the folder has none");
    return null;
  }
  const result = answers.compare(answer, expected);
  agree(result.text, result.same);
  sample.mark.textContent = result.same ? "✓" : "✗";
  sample.mark.classList.toggle("bad", !result.same);
  sample.mark.title = result.text;
  say("Ready.");
  return result;
}

async function checkAll() {
  const results = [];
  for (const sample of folder.samples) {
    say(`Comparing sample ${results.length + 1} of ${folder.samples.length}.`);
    results.push(await showSample(sample));
  }
  const same = results.filter((result) => result?.same).length;
  const most = Math.max(...results.map((result) => result?.difference ?? 0));
  say(
    `${same} of ${results.length} samples have the exporter's answer; the ` +
      `largest difference is ${most.toExponential(1)}.`,
    same < results.length,
  );
}

async function toggleCamera() {
  if (camera) return stopCamera();
  camera = await navigator.mediaDevices.getUserMedia({
    video: { facingMode: "environment", width: 640 },
  });
  const stream = camera;
  get("camera").textContent = "Stop the camera";
  press(null);
  agree(NOT_KNOWN);
  const video = document.createElement("video");
  Object.assign(video, { srcObject: stream, muted: true, playsInline: true });
  await video.play();
  say("The camera runs.");
  const next = guarded(async () => {
    if (camera !== stream) return;
    await show(await createImageBitmap(video));
    requestAnimationFrame(next);
  });
  requestAnimationFrame(next);
}

function stopCamera() {
  camera?.getTracks().forEach((track) => track.stop());
  camera = null;
  get("camera").textContent = "Use the camera";
}

function facts({ document: about, format, device, partly }) {
  const { size, resize } = about.preprocessing;
  const what = {
    classify: "classes",
    segment: "a class for each pixel",
    detect: "boxes",
  };
  const parts = [
    about.model,
    what[about.task] ?? about.task,
    `${size} px${resize === "stretch" ? ", stretched" : ""}`,
    about.precision,
    `${(bytes.length / 1e6).toFixed(1)} MB`,
    `${NAMES[format]} on ${device === "webgpu" ? "WebGPU" : "WebAssembly"}`,
  ];
  get("facts").textContent = parts.join(" · ");
  if (format === "litert" && about.precision === "fp16")
    return (
      "Float16 weights are several times slower in LiteRT.js, which computes " +
      "them outside XNNPACK: export fp32 or int8 for a browser."
    );
  if (partly && device === "webgpu")
    return "A part of this file runs on the processor: WebGPU doesn't take it.";
  return "Ready.";
}

// On the device that was asked for; WebAssembly, and why, where WebGPU fails.
async function loadOn(file, device) {
  if (device === "wasm") return [await load(file, device), ""];
  let made = null;
  try {
    made = await load(file, device);
    // Some files load, and fail in their first run.
    const black = new Uint8ClampedArray(3 * 64 * 64);
    await made.look({ data: black, width: 64, height: 64 });
    return [made, ""];
  } catch (error) {
    made?.close();
    const other = await load(file, "wasm");
    document.querySelector("[value=wasm]").checked = true;
    const why = error.message.split("\n")[0].slice(0, 200);
    return [other, `WebGPU doesn't run this file, WebAssembly does: ${why}`];
  }
}

async function open(file, device) {
  stopCamera();
  say(
    `Loading the file into its engine (${(file.length / 1e6).toFixed(1)} MB).`,
  );
  const [loaded, failed] = await loadOn(file, device);
  net?.close();
  [net, bytes, times] = [loaded, file, []];
  const headings = {
    classify: "Likeliest classes",
    segment: "Classes of the pixels",
  };
  get("heading").textContent = headings[net.document.task] ?? "Objects";
  const line = failed || facts(net);
  if (shown) await show(shown.picture);
  else if (folder.samples.length) await showSample(folder.samples[0]);
  say(line);
}

function deviceOf() {
  return document.querySelector("[name=device]:checked").value;
}

function addSamples() {
  const buttons = folder.samples.map((sample, index) => {
    const button = document.createElement("button");
    const image = document.createElement("img");
    sample.mark = document.createElement("span");
    sample.mark.className = "mark";
    Object.assign(button, { type: "button", title: sample.name });
    Object.assign(image, {
      src: sample.file,
      alt: `Sample ${index + 1}: ${sample.name}`,
    });
    image.onload = () =>
      image.classList.toggle("tiny", image.naturalWidth < 32);
    button.append(image, sample.mark);
    button.onclick = guarded(() => showSample(sample));
    sample.button = button;
    return button;
  });
  get("samples").replaceChildren(...buttons);
  get("check").hidden = folder.samples.every(({ answer }) => !answer);
}

// One thing at a time: what is asked for while another runs waits for it.
let last = Promise.resolve();
function guarded(action) {
  return (...args) => {
    const next = last
      .then(() => action(...args))
      .catch((error) => {
        console.error(error);
        stopCamera();
        say(error.message, true);
      });
    last = next;
    return next;
  };
}

function whenChosen(id, action) {
  get(id).onchange = guarded(async () => {
    const [file] = get(id).files;
    if (file) await action(file);
    get(id).value = ""; // the same file may be chosen again
  });
}

const openFile = async (file) =>
  open(new Uint8Array(await file.arrayBuffer()), deviceOf());

async function begin() {
  whenChosen("photograph", showPhotograph);
  whenChosen("file", openFile);
  get("camera").onclick = guarded(toggleCamera);
  get("check").onclick = guarded(checkAll);
  for (const radio of document.querySelectorAll("[name=device]"))
    radio.onchange = guarded(() => bytes && open(bytes, deviceOf()));
  const frame = get("frame");
  frame.ondragover = (event) => {
    event.preventDefault();
    frame.classList.add("over");
  };
  frame.ondragleave = () => frame.classList.remove("over");
  frame.ondrop = (event) => {
    event.preventDefault();
    frame.classList.remove("over");
    const [file] = event.dataTransfer.files; // gone once this returns
    if (!file) return;
    const photograph = file.type.startsWith("image/");
    guarded(photograph ? showPhotograph : openFile)(file);
  };
  const radio = document.querySelector("[value=webgpu]");
  radio.disabled = !(await hasWebGPU());
  if (radio.disabled) radio.parentElement.append(": not in this browser");
  folder = JSON.parse(await (await fetched("demo.json")).text());
  get("title").textContent = folder.title;
  document.title = folder.title;
  addSamples();
  const file = await fetched(folder.model);
  folder.bytes = new Uint8Array(await file.arrayBuffer());
  await open(folder.bytes, deviceOf());
}

/** For tests: what the page answers to a picture's file. */
export async function answerTo(blob) {
  const { answer, ms } = await look(await decode(blob));
  return { answer, ms };
}

export const ready = guarded(begin)();
