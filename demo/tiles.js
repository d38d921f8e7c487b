"use strict";

/* Images larger than the network is meant for are worked on in overlapping tiles, by as
 * many workers as there are processors. An image up to TILE + 2 * MARGIN is one piece. */
const TILE = 64;
const MARGIN = 8;

/* Parts [begin, end) of a side, each with what it is seen with: [from, to). */
function spans(length, tile, margin) {
  if (length <= tile + 2 * margin) return [{ begin: 0, end: length, from: 0, to: length }];
  const parts = [];
  for (let begin = 0; begin < length; begin += tile) {
    const end = Math.min(begin + tile, length);
    parts.push({ begin, end, from: Math.max(begin - margin, 0), to: Math.min(end + margin, length) });
  }
  return parts;
}

function cut(x, rows, columns) {
  const h = rows.to - rows.from, w = columns.to - columns.from;
  const data = new Float32Array(h * w * x.c);
  for (let r = 0; r < h; r++) {
    const from = ((rows.from + r) * x.w + columns.from) * x.c;
    data.set(x.data.subarray(from, from + w * x.c), r * w * x.c);
  }
  return { h, w, c: x.c, data };
}

/* Put the middle of a result where it belongs; `scale` maps places of what was cut. */
function paste(whole, part, rows, columns, scale) {
  const at = (v) => Math.round(v * scale);
  for (let r = at(rows.begin); r < at(rows.end); r++) {
    const from = ((r - at(rows.from)) * part.w + at(columns.begin) - at(columns.from)) * part.c;
    const length = (at(columns.end) - at(columns.begin)) * part.c;
    whole.data.set(part.data.subarray(from, from + length), (r * whole.w + at(columns.begin)) * part.c);
  }
}

class Pool {
  constructor(model) {
    this.waiting = [];
    this.idle = [];
    const text = `${makeNetwork}
      let network;
      onmessage = ({ data: { model, job, x } }) => {
        if (model) network = makeNetwork(model);
        else { const y = network[job](x); postMessage(y, [y.data.buffer]); }
      };`;
    const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
    const count = Math.min(Math.max(navigator.hardwareConcurrency || 2, 1), 8);
    for (let i = 0; i < count; i++) {
      const worker = new Worker(address);
      worker.postMessage({ model });
      this.idle.push(worker);
    }
  }

  run(job, x) {
    return new Promise((done, fail) => {
      this.waiting.push({ job, x, done, fail });
      this.next();
    });
  }

  next() {
    while (this.idle.length && this.waiting.length) {
      const worker = this.idle.pop(), { job, x, done, fail } = this.waiting.shift();
      const free = () => { this.idle.push(worker); this.next(); };
      worker.onmessage = ({ data }) => { free(); done(data); };
      worker.onerror = (event) => { free(); fail(new Error(event.message)); };
      worker.postMessage({ job, x });
    }
  }

  /* Encode or decode x in tiles; `told` hears of the share that is done. */
  async tiled(job, x, factor, channels, told, cancelled) {
    const encodes = job === "encode", unit = encodes ? 1 : factor;
    const scale = encodes ? 1 / factor : factor;
    const h = Math.round(x.h * scale), w = Math.round(x.w * scale);
    const y = { h, w, c: channels, data: new Float32Array(h * w * channels) };
    const jobs = [];
    for (const rows of spans(x.h, TILE / unit, MARGIN / unit)) {
      for (const columns of spans(x.w, TILE / unit, MARGIN / unit)) jobs.push([rows, columns]);
    }
    let finished = 0;
    await Promise.all(jobs.map(async ([rows, columns]) => {
      paste(y, await this.run(job, cut(x, rows, columns)), rows, columns, scale);
      if (!cancelled()) told(++finished / jobs.length);
    }));
    return y;
  }
}
