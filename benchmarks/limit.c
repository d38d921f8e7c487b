/* What a CPU can do: the 3x3x3 channel convolution of one field, hand-written.

   float32 [B, H, W, C], C a multiple of 16, zeros around space, channels a circle. No
   framework, no allocation, threads by OpenMP: the practical limit that formulations are
   measured against. kernel is [3][3][3]: row, column, channel. */

#include <stddef.h>
#include <string.h>

enum { LANES = 16, MOST = 1 << 16 };
typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));
static const float nothing[MOST];

#define AFTER(a, b) __builtin_shufflevector(a, b, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
#define BEFORE(a, b) __builtin_shufflevector(a, b, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30)

static inline vec load(const float *p) { return *(const vec *)p; }

/* The nine rows of channels around a position. */
static inline void around(const float *x, int b, int h, int w, int H, int W, int C,
                          const float *rows[9]) {
  for (int t = 0; t < 9; ++t) {
    int r = h + t / 3 - 1, c = w + t % 3 - 1;
    int inside = r >= 0 && r < H && c >= 0 && c < W;
    rows[t] = inside ? x + (((size_t)b * H + r) * W + c) * C : nothing;
  }
}

static inline void taps(const float *rows[9], int c, const vec k[27], vec sum[3]) {
  sum[0] = sum[1] = sum[2] = (vec){0};
#pragma GCC unroll 9
  for (int t = 0; t < 9; ++t) {
    vec x = load(rows[t] + c);
    sum[0] += x * k[3 * t];
    sum[1] += x * k[3 * t + 1];
    sum[2] += x * k[3 * t + 2];
  }
}

void forward(const float *x, const float *kernel, float *y, int B, int H, int W, int C) {
#pragma omp parallel for schedule(static)
  for (int line = 0; line < B * H; ++line) {
    vec k[27];
    for (int n = 0; n < 27; ++n) k[n] = (vec){0} + kernel[n];
    for (int w = 0; w < W; ++w) {
      const float *rows[9];
      float *out = y + ((size_t)line * W + w) * C;
      vec now[3], next[3], last[3], first;
      around(x, line / H, line % H, w, H, W, C, rows);
      taps(rows, C - LANES, k, last);
      taps(rows, 0, k, now);
      first = now[2];
      vec sum = now[1] + BEFORE(last[0], now[0]);
      for (int c = LANES; c < C; c += LANES) {
        taps(rows, c, k, next);
        *(vec *)(out + c - LANES) = sum + AFTER(now[2], next[2]);
        sum = next[1] + BEFORE(now[0], next[0]);
        memcpy(now, next, sizeof(now));
      }
      *(vec *)(out + C - LANES) = sum + AFTER(now[2], first);
    }
  }
}

void input_gradient(const float *g, const float *k, float *dx, int B, int H, int W, int C) {
  float flipped[27];
  for (int n = 0; n < 27; ++n) flipped[n] = k[26 - n];
  forward(g, flipped, dx, B, H, W, C);
}

void kernel_gradient(const float *x, const float *g, float *dk, int B, int H, int W, int C) {
  double total[27] = {0};
#pragma omp parallel for schedule(static) reduction(+ : total[:27])
  for (int line = 0; line < B * H; ++line) {
    vec sum[27] = {{0}};
    for (int w = 0; w < W; ++w) {
      const float *rows[9], *at = g + ((size_t)line * W + w) * C;
      around(x, line / H, line % H, w, H, W, C, rows);
      vec before = load(at + C - LANES), here = load(at);
      for (int c = 0; c < C; c += LANES) {
        vec after = load(at + (c + LANES < C ? c + LANES : 0));
        vec of[3] = {AFTER(here, after), here, BEFORE(before, here)};
#pragma GCC unroll 9
        for (int t = 0; t < 9; ++t) {
          vec v = load(rows[t] + c);
          sum[3 * t] += v * of[0];
          sum[3 * t + 1] += v * of[1];
          sum[3 * t + 2] += v * of[2];
        }
        before = here;
        here = after;
      }
    }
    for (int n = 0; n < 27; ++n)
      for (int lane = 0; lane < LANES; ++lane) total[n] += sum[n][lane];
  }
  for (int n = 0; n < 27; ++n) dk[n] = total[n];
}

void copy(const float *x, float *y, size_t n) {
#pragma omp parallel for schedule(static)
  for (size_t i = 0; i < n; i += LANES) *(vec *)(y + i) = load(x + i);
}
