// What a window of the channel convolution does at one position: shared by its kernels.
//
// A feature map is [B, H, W, F * D], field-major, D a multiple of 16. A tap along the
// channel axis is a shift of whole vectors in registers, so that a loaded vector serves
// three taps.

#ifndef DEEPPRISM_TAPS_H_
#define DEEPPRISM_TAPS_H_

#include <vector>

#include "vector.h"

namespace deepprism {
namespace {  // each file its own: what is not shared is inlined better

// How the channel axis ends; the last is the adjoint of `kReplicate`.
enum Ends : int64_t { kZero, kReplicate, kCircular, kFolded };

// The 16 lanes of (low, high) that begin one after, and one before, those of an operand.
inline Vec After(Vec low, Vec high) {
  return __builtin_shufflevector(low, high, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13,
                                 14, 15, 16);
}
inline Vec Before(Vec low, Vec high) {
  return __builtin_shufflevector(low, high, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25,
                                 26, 27, 28, 29, 30);
}

// Called for each vector of channels, to ask memory for what is needed soon.
struct AskNothing {
  void operator()(int64_t) const {}
};

// One vector of channels times the weights, a sum for each of the three channel taps.
struct Taps {
  Vec before{}, at{}, after{};
};

template <int N, typename T>
__attribute__((always_inline)) inline Taps Multiply(const T* const* rows, int64_t c, const float* w) {
  Taps sum;
#pragma GCC unroll 9
  for (int t = 0; t < N; ++t) {
    Vec x = Load(rows[t] + c);
    sum.before += x * w[t];
    sum.at += x * w[N + t];
    sum.after += x * w[2 * N + t];
  }
  return sum;
}

// y[c] = start, or what y[c] was, + sum over taps t, k of w[k][t] * rows[t][c + k - 1].
template <int N, bool kAdd, typename T, typename Y, typename Ask>
void Correlate(const T* const* rows, const float* w, float start, int64_t depth,
               int64_t ends, Y* y, const Ask& ask) {
  auto put = [&](int64_t c, Vec v) {
    ask(c);
    Store(y + c, v + (kAdd ? Load(y + c) : Splat(start)));
  };
  Taps now = Multiply<N>(rows, 0, w);
  const Vec first_after = now.after;
  Vec left{}, right{};
  if (ends == kReplicate) left = Splat(now.before[0]);
  if (ends == kFolded) left = Splat(now.after[0]);
  if (ends == kCircular) left = Multiply<N>(rows, depth - kLanes, w).before;
  Vec sum = now.at + Before(left, now.before);
  for (int64_t c = kLanes; c < depth; c += kLanes) {
    const Taps next = Multiply<N>(rows, c, w);
    put(c - kLanes, sum + After(now.after, next.after));
    sum = next.at + Before(now.before, next.before);
    now = next;
  }
  if (ends == kReplicate) right = Splat(now.after[kLanes - 1]);
  if (ends == kFolded) right = Splat(now.before[kLanes - 1]);
  if (ends == kCircular) right = first_after;
  put(depth - kLanes, sum + After(now.after, right));
}

// total[k][t] += sum over c of rows[t][c + k - 1] * g[c], a lane apart.
template <int N, typename T, typename Ask>
inline void Accumulate(const T* const* rows, const T* g, int64_t depth, int64_t ends,
                       Vec* total, const Ask& ask) {
  Vec before = ends == kCircular ? Load(g + depth - kLanes) : Vec{};
  Vec at = Load(g);
  for (int64_t c = 0; c < depth; c += kLanes) {
    ask(c);
    const bool last = c + kLanes == depth;
    const Vec after = !last                ? Load(g + c + kLanes)
                      : ends == kCircular ? Load(g)
                                          : Vec{};
    Vec of_before = After(at, after), of_after = Before(before, at);
    if (ends == kReplicate && c == 0) of_before[0] += at[0];
    if (ends == kReplicate && last) of_after[kLanes - 1] += at[kLanes - 1];
#pragma GCC unroll 9
    for (int t = 0; t < N; ++t) {
      const Vec x = Load(rows[t] + c);
      total[t] += x * of_before;
      total[N + t] += x * at;
      total[2 * N + t] += x * of_after;
    }
    before = at;
    at = after;
  }
}

struct Shape {
  int64_t batch, height, width, out_height, out_width, depth, fields_in, fields_out;
  int64_t row_stride, column_stride, rows, columns;

  explicit Shape(ffi::Span<const int64_t> v)
      : batch(v[0]), height(v[1]), width(v[2]), out_height(v[3]), out_width(v[4]),
        depth(v[5]), fields_in(v[6]), fields_out(v[7]), row_stride(v[8]),
        column_stride(v[9]), rows(v[10]), columns(v[11]) {}

  int64_t Cost() const {
    return batch * out_height * out_width * depth * fields_in * fields_out * rows *
           columns * 3;
  }
};

// Taps of space a row of the window: it is 3x3 or 1x1, and known when compiled, for a
// division by it would take longer than the products of a tap.
template <int N>
constexpr int64_t kSide = N == 9 ? 3 : 1;

// Kernel [rows * columns, 3, F_in, F_out] as [F_out][F_in][3][rows * columns], or for
// the adjoint as [F_in][F_out][3, turned around][rows * columns].
template <typename T>
std::vector<float> Arrange(const T* kernel, int64_t taps, const Shape& s, bool adjoint) {
  const int64_t in = s.fields_in, out = s.fields_out;
  std::vector<float> w(taps * 3 * in * out);
  for (int64_t t = 0; t < taps; ++t)
    for (int64_t k = 0; k < 3; ++k)
      for (int64_t i = 0; i < in; ++i)
        for (int64_t o = 0; o < out; ++o) {
          const int64_t pair = adjoint ? i * out + o : o * in + i;
          const int64_t tap = (pair * 3 + (adjoint ? 2 - k : k)) * taps + t;
          const T& from = kernel[((t * 3 + k) * in + i) * out + o];
          if constexpr (sizeof(T) == 4) {
            w[tap] = from;
          } else {
            const uint32_t word = uint32_t{from.bits} << 16;
            std::memcpy(&w[tap], &word, 4);
          }
        }
  return w;
}

// Sums the correlations of all fields that are read into each that is written, and adds
// a bias a field. Sums of several fields are made in `scratch`.
template <int N>
struct Position {
  int64_t depth, ends, reads, writes;
  const std::vector<float>& w;
  const float* bias;
  std::vector<float> scratch;

  template <typename In, typename Out, typename RowsOf, typename Ask = AskNothing>
  void Write(Out* y, const RowsOf& rows_of, const Ask& ask = {}) {
    const In* rows[N];
    if (reads == 1) {
      rows_of(0, rows);
      for (int64_t o = 0; o < writes; ++o)
        Correlate<N, false>(rows, &w[o * 3 * N], bias[o], depth, ends, y + o * depth, ask);
      return;
    }
    scratch.resize(writes * depth);
    for (int64_t i = 0; i < reads; ++i) {
      rows_of(i, rows);
      for (int64_t o = 0; o < writes; ++o) {
        const float* weights = &w[(o * reads + i) * 3 * N];
        float* out = &scratch[o * depth];
        if (i == 0)
          Correlate<N, false>(rows, weights, bias[o], depth, ends, out, ask);
        else
          Correlate<N, true>(rows, weights, 0.f, depth, ends, out, AskNothing());
      }
    }
    for (int64_t c = 0; c < writes * depth; c += kLanes) Store(y + c, Load(&scratch[c]));
  }
};

}  // namespace
}  // namespace deepprism

#endif  // DEEPPRISM_TAPS_H_
