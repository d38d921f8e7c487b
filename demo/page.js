"use strict";

const element = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en");

function unpack(model) {
  for (const tensor of Object.values(model.tensors)) {
    const bytes = Uint8Array.from(atob(tensor.base64), (letter) => letter.charCodeAt(0));
    tensor.data = new Float32Array(bytes.buffer);
    delete tensor.base64;
  }
  return model;
}

const model = unpack(MODEL);
const factor = 2 ** model.options.downsamples;
const pool = new Pool(model);
let source = null;
let encoded = null;
let turn = 0;

const tensors = Object.values(model.tensors);
element("parameters").textContent = count(tensors.reduce((sum, t) => sum + t.data.length, 0));

function tell(text, share = null) {
  element("status").textContent = text;
  element("progress").hidden = share === null;
  element("progress").value = share ?? 0;
}

/* Shrink an image to the chosen size, to sides that the network can halve. */
function shrink(picture) {
  const most = Number(element("size").value);
  const ratio = Math.min(1, most / Math.max(picture.width, picture.height));
  const side = (n) => Math.max(factor, Math.round((n * ratio) / factor) * factor);
  const canvas = element("input");
  [canvas.width, canvas.height] = [side(picture.width), side(picture.height)];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // what is transparent becomes white
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

function toFloats({ width, height, data }) {
  const floats = new Float32Array(width * height * 3);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) floats[3 * i + c] = (data[4 * i + c] * 2) / 255 - 1;
  }
  return { h: height, w: width, c: 3, data: floats };
}

/* Show three channels as red, green and blue; `byte` maps a value to 0..255. */
function show(id, { h, w, c, data }, byte) {
  const canvas = element(id);
  [canvas.width, canvas.height] = [w, h];
  const pixels = new ImageData(w, h);
  for (let i = 0; i < h * w; i++) {
    for (let k = 0; k < 3; k++) pixels.data[4 * i + k] = byte(data[i * c + Math.min(k, c - 1)]);
    pixels.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return pixels;
}

const toByte = (value) => Math.round((Math.min(Math.max(value, -1), 1) + 1) * 127.5);

async function encode() {
  const mine = ++turn, stale = () => mine !== turn;
  encoded = null;
  document.body.dataset.state = "working";
  const pixels = shrink(source);
  const began = performance.now();
  tell("Encoding.", 0);
  const told = (share) => tell("Encoding.", share);
  const code = await pool.tiled("encode", toFloats(pixels), factor, model.options.z_channels, told, stale);
  if (stale()) return;
  encoded = { pixels, code, seconds: (performance.now() - began) / 1000 };
  await decode();
}

async function decode() {
  const mine = ++turn, stale = () => mine !== turn;
  document.body.dataset.state = "working";
  const { pixels, code } = encoded, bits = Number(element("bits").value);
  const rounded = quantize(code, bits);
  const bytes = await bytesOf(rounded);
  const began = performance.now();
  const told = (share) => tell("Decoding.", share);
  const image = await pool.tiled("decode", rounded, factor, 3, told, stale);
  if (stale()) return;
  const seconds = encoded.seconds + (performance.now() - began) / 1000;
  show("code", { ...rounded, data: rounded.symbols }, (s) => (s * 255) / rounded.levels);
  const rows = [[`Code, ${bits} bits a number, deflated`, bytes, psnr(pixels.data, show("output", image, toByte).data)]];
  for (const [id, type, name] of [["jpeg", "image/jpeg", "JPEG"], ["webp", "image/webp", "WebP"]]) {
    rows.push([name, ...(await other(id, type, bytes, pixels, stale))]);
    if (stale()) return;
  }
  report(rows, pixels, code, seconds);
  window.deepprism = { pixels, code, rounded, image, rows };
  document.body.dataset.state = "done";
}

/* Show what another format makes of the bytes; returns its size, PSNR and a remark. */
async function other(id, type, bytes, pixels, stale) {
  const found = await fileOfAtMost(element("input"), type, bytes);
  if (stale()) return [];
  element(id).closest("figure").hidden = !found;
  if (!found) return [null, null, "not written by this browser"];
  const canvas = element(id), bitmap = await createImageBitmap(found.blob);
  [canvas.width, canvas.height] = [pixels.width, pixels.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const shown = context.getImageData(0, 0, pixels.width, pixels.height);
  const note = found.fits ? `quality ${found.quality}` : "its smallest file, larger than the code";
  return [found.blob.size, psnr(pixels.data, shown.data), note];
}

function report(rows, pixels, code, seconds) {
  const area = pixels.width * pixels.height;
  const body = element("sizes").querySelector("tbody");
  body.replaceChildren(...rows.map(([name, bytes, decibels, note]) => {
    const row = document.createElement("tr");
    const cells = [
      note ? `${name} (${note})` : name,
      bytes === null ? "" : count(bytes),
      bytes === null ? "" : ((8 * bytes) / area).toFixed(2),
      bytes === null ? "" : `${decibels.toFixed(2)} dB`,
    ];
    cells.forEach((text) => row.insertCell().textContent = text);
    return row;
  }));
  const [own, jpeg, webp] = rows;
  element("input-note").textContent = `${pixels.width} x ${pixels.height} pixels, ${count(3 * area)} bytes as they are`;
  element("code-note").textContent = `${code.w} x ${code.h} x ${code.c} numbers, channels as colours; ${count(own[1])} bytes`;
  element("output-note").textContent = `${own[2].toFixed(2)} dB`;
  for (const [id, found] of [["jpeg", jpeg], ["webp", webp]]) {
    if (found[1] !== null) element(`${id}-note`).textContent = `${found[2].toFixed(2)} dB, ${count(found[1])} bytes, ${found[3]}`;
  }
  for (const id of ["results", "sizes"]) element(id).hidden = false;
  tell(`Done in ${seconds.toFixed(1)} seconds.`);
}

async function begin(work) {
  try {
    await work();
  } catch (error) {
    document.body.dataset.state = "failed";
    tell(`That did not work: ${error.message}`);
  }
}

/* Take a file or blob as the image. */
function take(blob) {
  return begin(async () => {
    try {
      source = await createImageBitmap(blob);
    } catch {
      throw new Error(`${blob.name || "this"} is no image that the browser can read; give a PNG, JPEG or WebP`);
    }
    await encode();
  });
}

for (const [name, address] of Object.entries(PICTURES)) {
  const button = document.createElement("button"), image = new Image();
  image.src = address;
  image.alt = name;
  button.type = "button";
  button.title = name;
  button.append(image);
  button.onclick = () => begin(async () => {
    await image.decode();
    source = await createImageBitmap(image); // an image's own width is that on the page
    await encode();
  });
  element("pictures").append(button);
}

const drop = element("drop");
element("file").onchange = ({ target }) => { if (target.files[0]) take(target.files[0]); };
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files[0]) take(event.dataTransfer.files[0]);
  });
}
document.addEventListener("paste", ({ clipboardData }) => {
  if (clipboardData.files[0]) take(clipboardData.files[0]);
});
element("size").onchange = () => { if (source) begin(encode); };
element("bits").oninput = ({ target }) => {
  element("bits-value").textContent = target.value;
  if (encoded) begin(decode);
};
tell("Ready.");
document.body.dataset.state = "ready";
