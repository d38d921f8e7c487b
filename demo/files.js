"use strict";

/* Sizes of files: of the rounded code, and of JPEG and WebP of as many bytes. */

/* Round each channel of a code uniformly over its own range; what a file would hold. */
function quantize(code, bits) {
  const levels = 2 ** bits - 1, places = code.h * code.w;
  const low = new Float32Array(code.c).fill(Infinity), high = new Float32Array(code.c).fill(-Infinity);
  code.data.forEach((value, i) => {
    low[i % code.c] = Math.min(low[i % code.c], value);
    high[i % code.c] = Math.max(high[i % code.c], value);
  });
  const symbols = new Uint8Array(places * code.c), data = new Float32Array(places * code.c);
  code.data.forEach((value, i) => {
    const c = i % code.c, range = high[c] - low[c] || 1;
    symbols[i] = Math.round(((value - low[c]) / range) * levels);
    data[i] = low[c] + (symbols[i] / levels) * range;
  });
  return { ...code, data, symbols, levels };
}

/* Bytes of the code as a file: sizes and bits, ranges, and the deflated differences. */
async function bytesOf(quantized) {
  const { h, w, c, symbols, levels } = quantized;
  const differences = new Uint8Array(symbols.length);
  for (let channel = 0, to = 0; channel < c; channel++) {
    for (let row = 0; row < h; row++) {
      for (let column = 0, before = 0; column < w; column++, to++) {
        const symbol = symbols[(row * w + column) * c + channel];
        differences[to] = (symbol - before) & levels;
        before = symbol;
      }
    }
  }
  const stream = new Blob([differences]).stream().pipeThrough(new CompressionStream("deflate-raw"));
  const body = await new Response(stream).arrayBuffer();
  return 5 + 8 * c + body.byteLength;
}

function blobOf(canvas, type, quality) {
  return new Promise((done) => canvas.toBlob(done, type, quality));
}

/* The browser's file of the highest quality of at most `most` bytes, else its smallest;
 * null where the browser writes no such files. */
async function fileOfAtMost(canvas, type, most) {
  let best = await blobOf(canvas, type, 0);
  if (!best || best.type !== type) return null;
  let low = 0, high = 100, quality = 0;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    const blob = await blobOf(canvas, type, middle / 100);
    if (blob.size <= most) { low = quality = middle; best = blob; } else high = middle;
  }
  return { blob: best, quality, fits: best.size <= most };
}

/* Peak signal-to-noise ratio of two arrays of RGBA bytes, over red, green and blue. */
function psnr(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) if (i % 4 !== 3) sum += (a[i] - b[i]) ** 2;
  return 10 * Math.log10((255 * 255) / (sum / (a.length * 0.75)));
}
