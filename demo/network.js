"use strict";

/* The autoencoder's forward pass, on one image, in plain JavaScript.
 *
 * Which layers there are is read off the names of the weights. A feature map is
 * {h, w, c, data}, channel last, as in the Python package; its C channels are F fields
 * of depth D, and a hidden layer is a small convolution over height, width and depth.
 *
 * One self-contained function, so that its text can be handed to a worker.
 */
function makeNetwork(model) {
  const { options, tensors } = model;

  const map = (h, w, c) => ({ h, w, c, data: new Float32Array(h * w * c) });
  const has = (name) => name in tensors;

  /* Convolution over (height, width, channel), odd kernel [kh, kw, kc, F, F']. */
  function prism(x, name, stride = 1) {
    const { shape, data: kernel } = tensors[`${name}.kernel`];
    const bias = tensors[`${name}.bias`].data;
    const [kh, kw, kc, fields, fieldsOut] = shape;
    const depth = x.c / fields;
    const padded = withHalo(x, fields, kh >> 1, kw >> 1, kc >> 1);
    const y = map(Math.ceil(x.h / stride), Math.ceil(x.w / stride), fieldsOut * depth);
    const { data, pitch } = padded;
    const line = fields * pitch;
    const three = kw === 3 && kc === 3;
    for (let row = 0, out = 0; row < y.h; row++) {
      for (let column = 0; column < y.w; column++) {
        for (let g = 0; g < fieldsOut; g++, out += depth) {
          y.data.fill(bias[g], out, out + depth);
          for (let i = 0; i < kh; i++) {
            const first = ((row * stride + i) * padded.w + column * stride) * line;
            for (let f = 0; f < fields; f++) {
              const at = (j, k) => kernel[(((i * kw + j) * kc + k) * fields + f) * fieldsOut + g];
              const start = first + f * pitch;
              if (three) nineTaps(y.data, out, data, start, line, depth, at);
              else {
                for (let j = 0; j < kw; j++) {
                  for (let k = 0; k < kc; k++) {
                    const weight = at(j, k), from = start + j * line + k;
                    for (let d = 0; d < depth; d++) y.data[out + d] += weight * data[from + d];
                  }
                }
              }
            }
          }
        }
      }
    }
    return y;
  }

  /* Three columns of three taps at once: every number is read once and written once. */
  function nineTaps(y, out, x, start, line, depth, at) {
    const a0 = at(0, 0), a1 = at(0, 1), a2 = at(0, 2);
    const b0 = at(1, 0), b1 = at(1, 1), b2 = at(1, 2);
    const c0 = at(2, 0), c1 = at(2, 1), c2 = at(2, 2);
    let a = start, b = start + line, c = start + 2 * line;
    let p = x[a], q = x[a + 1], r = x[b], s = x[b + 1], t = x[c], u = x[c + 1];
    a += 2; b += 2; c += 2;
    for (let d = 0; d < depth; d++) {
      const l = x[a + d], m = x[b + d], n = x[c + d];
      y[out + d] += a0 * p + a1 * q + a2 * l + b0 * r + b1 * s + b2 * m + c0 * t + c1 * u + c2 * n;
      p = q; q = l; r = s; s = m; t = u; u = n;
    }
  }

  /* Every field with zeros around it in space, and its topology along the channels. */
  function withHalo(x, fields, rows, columns, taps) {
    const depth = x.c / fields, pitch = depth + 2 * taps;
    const w = x.w + 2 * columns;
    const data = new Float32Array((x.h + 2 * rows) * w * fields * pitch);
    const kind = options.channel_padding;
    for (let row = 0; row < x.h; row++) {
      for (let column = 0; column < x.w; column++) {
        for (let f = 0; f < fields; f++) {
          const from = (row * x.w + column) * x.c + f * depth;
          const to = (((row + rows) * w + column + columns) * fields + f) * pitch + taps;
          data.set(x.data.subarray(from, from + depth), to);
          if (kind === "zero") continue;
          for (let k = 1; k <= taps; k++) {
            const circular = kind === "circular";
            data[to - k] = x.data[from + (circular ? depth - k : 0)];
            data[to + depth - 1 + k] = x.data[from + (circular ? k - 1 : depth - 1)];
          }
        }
      }
    }
    return { data, pitch, w };
  }

  /* A dense convolution, kernel [k, k, C, C']: the layers beside images and codes. */
  function dense(x, name) {
    const { shape: [kh, kw, , channels], data: kernel } = tensors[`${name}.kernel`];
    const bias = tensors[`${name}.bias`].data;
    const y = map(x.h, x.w, channels), sums = new Float64Array(channels);
    for (let row = 0, out = 0; row < x.h; row++) {
      for (let column = 0; column < x.w; column++, out += channels) {
        sums.set(bias);
        for (let i = 0; i < kh; i++) {
          const r = row + i - (kh >> 1);
          if (r < 0 || r >= x.h) continue;
          for (let j = 0; j < kw; j++) {
            const s = column + j - (kw >> 1);
            if (s < 0 || s >= x.w) continue;
            let k = (i * kw + j) * x.c * channels;
            for (let c = 0, from = (r * x.w + s) * x.c; c < x.c; c++) {
              const value = x.data[from + c];
              for (let o = 0; o < channels; o++) sums[o] += value * kernel[k++];
            }
          }
        }
        y.data.set(sums, out);
      }
    }
    return y;
  }

  function groupNorm(x, name, silu) {
    const scale = tensors[`${name}.scale`].data, bias = tensors[`${name}.bias`].data;
    const groups = options.norm_groups, members = x.c / groups, places = x.h * x.w;
    const sums = new Float64Array(x.c), squares = new Float64Array(x.c);
    for (let p = 0, at = 0; p < places; p++) {
      for (let c = 0; c < x.c; c++, at++) {
        sums[c] += x.data[at];
        squares[c] += x.data[at] * x.data[at];
      }
    }
    const slope = new Float64Array(x.c), offset = new Float64Array(x.c);
    for (let g = 0; g < groups; g++) {
      let sum = 0, square = 0;
      for (let c = g * members; c < (g + 1) * members; c++) { sum += sums[c]; square += squares[c]; }
      const mean = sum / (places * members);
      const variance = Math.max(square / (places * members) - mean * mean, 0);
      for (let c = g * members; c < (g + 1) * members; c++) {
        slope[c] = scale[c] / Math.sqrt(variance + 1e-6);
        offset[c] = bias[c] - mean * slope[c];
      }
    }
    const y = map(x.h, x.w, x.c);
    for (let p = 0, at = 0; p < places; p++) {
      for (let c = 0; c < x.c; c++, at++) {
        const value = x.data[at] * slope[c] + offset[c];
        y.data[at] = silu ? value / (1 + Math.exp(-value)) : value;
      }
    }
    return y;
  }

  function plus(x, y) {
    for (let i = 0; i < y.data.length; i++) y.data[i] += x.data[i];
    return y;
  }

  function residual(x, name) {
    const h = prism(groupNorm(x, `${name}.norm1`, true), `${name}.conv1`);
    return plus(x, prism(groupNorm(h, `${name}.norm2`, true), `${name}.conv2`));
  }

  function attention(x, name) {
    const normed = groupNorm(x, `${name}.norm`, false);
    const project = (which) => prism(normed, `${name}.attention.${which}`);
    const q = project("query"), k = project("key"), v = project("value");
    const y = map(x.h, x.w, x.c), tokens = x.h * x.w;
    const size = x.c / options.heads, weights = new Float64Array(tokens);
    for (let head = 0; head < options.heads; head++) {
      for (let i = 0; i < tokens; i++) {
        const from = i * x.c + head * size;
        let most = -Infinity, total = 0;
        for (let j = 0; j < tokens; j++) {
          let dot = 0;
          for (let c = 0, other = j * x.c + head * size; c < size; c++) dot += q.data[from + c] * k.data[other + c];
          weights[j] = dot / Math.sqrt(size);
          most = Math.max(most, weights[j]);
        }
        for (let j = 0; j < tokens; j++) total += weights[j] = Math.exp(weights[j] - most);
        for (let j = 0; j < tokens; j++) {
          const weight = weights[j] / total, other = j * x.c + head * size;
          for (let c = 0; c < size; c++) y.data[from + c] += weight * v.data[other + c];
        }
      }
    }
    return plus(x, prism(y, `${name}.attention.output`));
  }

  function doubled(x) {
    const y = map(2 * x.h, 2 * x.w, x.c);
    for (let row = 0; row < y.h; row++) {
      for (let column = 0; column < y.w; column++) {
        const from = ((row >> 1) * x.w + (column >> 1)) * x.c;
        y.data.set(x.data.subarray(from, from + x.c), (row * y.w + column) * x.c);
      }
    }
    return y;
  }

  function run(x, part) {
    let h = dense(x, `${part}.conv_in`);
    for (let i = 0; ; i++) {
      const name = `${part}.body.${i}`;
      if (has(`${name}.conv1.kernel`)) h = residual(h, name);
      else if (has(`${name}.norm.scale`)) h = attention(h, name);
      else if (!has(`${name}.conv.kernel`)) break;
      else if (part === "encoder") h = prism(h, `${name}.conv`, 2);
      else h = prism(doubled(h), `${name}.conv`);
    }
    return dense(groupNorm(h, `${part}.norm_out`, true), `${part}.conv_out`);
  }

  const latent = options.z_channels;
  return {
    factor: 2 ** options.downsamples,
    /* Image {h, w, c: 3} in [-1, 1] to the mean of its code {h / f, w / f, c: z}. */
    encode(image) {
      let moments = run(image, "encoder");
      if (has("quant_conv.kernel")) moments = dense(moments, "quant_conv");
      const code = map(moments.h, moments.w, latent);
      for (let p = 0; p < moments.h * moments.w; p++) {
        for (let c = 0; c < latent; c++) code.data[p * latent + c] = moments.data[p * moments.c + c];
      }
      return code;
    },
    /* Code to image, about [-1, 1]. */
    decode: (code) => run(has("post_quant_conv.kernel") ? dense(code, "post_quant_conv") : code, "decoder"),
  };
}
