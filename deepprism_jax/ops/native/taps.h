// What a window of the channel convolution does at one position: shared by its kernels.
//
// A feature map is [B, H, W, F * D], field-major, D a multiple of 16. A tap along the
// channel axis is a shift of whole vectors in registers, so that a loaded vector serves
// three taps.

#ifndef DEEPPRISM_TAPS_H_
#define DEEPPRISM_TAPS_H_

#include "scratch.h"
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

// Calls put(c, sum over taps t, k of w[k][t] * rows[t][c + k - 1]) for every c.
template <int N, typename T, typename Put>
void Correlate(const T* const* rows, const float* w, int64_t depth, int64_t ends,
               const Put& put) {
  const Taps first = Multiply<N>(rows, 0, w);
  // On a circle the last vector comes before the first: it is multiplied once for both.
  const bool ahead = ends == kCircular && depth > kLanes;
  const Taps last = ahead ? Multiply<N>(rows, depth - kLanes, w) : first;
  Vec left{}, right{};
  if (ends == kReplicate) left = Splat(first.before[0]);
  if (ends == kFolded) left = Splat(first.after[0]);
  if (ends == kCircular) left = last.before;
  Vec sum = first.at + Before(left, first.before);
  Taps now = first;
  const auto go_on = [&](int64_t c, const Taps& next) {
    put(c - kLanes, sum + After(now.after, next.after));
    sum = next.at + Before(now.before, next.before);
    now = next;
  };
  const int64_t end = ahead ? depth - kLanes : depth;
  for (int64_t c = kLanes; c < end; c += kLanes) go_on(c, Multiply<N>(rows, c, w));
  if (ahead) go_on(end, last);
  if (ends == kReplicate) right = Splat(now.after[kLanes - 1]);
  if (ends == kFolded) right = Splat(now.before[kLanes - 1]);
  if (ends == kCircular) right = first.after;
  put(depth - kLanes, sum + After(now.after, right));
}

// Called for each vector of channels, to ask memory for what is needed soon.
struct AskNothing {
  void operator()(int64_t) const {}
};

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
Scratch<float> Arrange(const T* kernel, int64_t taps, const Shape& s, bool adjoint) {
  const int64_t in = s.fields_in, out = s.fields_out;
  Scratch<float> w(taps * 3 * in * out);
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

// Sums the correlations of all fields that are read into each that is written, adds a
// bias a field, and calls put(c, sum) for every channel c that is written. Sums of several
// fields are made in `scratch`.
template <int N>
struct Position {
  int64_t depth, ends, reads, writes;
  const Scratch<float>& w;
  const float* bias;
  Scratch<float> scratch;

  template <typename In, typename RowsOf, typename Put>
  void Write(const RowsOf& rows_of, const Put& put) {
    if (reads > 1) scratch.resize(writes * depth);
    for (int64_t i = 0; i < reads; ++i) {
      const In* rows[N];
      rows_of(i, rows);
      const bool first = i == 0, last = i + 1 == reads;
      for (int64_t o = 0; o < writes; ++o) {
        const float* weights = &w[(o * reads + i) * 3 * N];
        const Vec start = Splat(bias[o]);
        float* sums = scratch.data() + o * depth;
        const auto correlate = [&](const auto& put) {
          Correlate<N>(rows, weights, depth, ends, put);
        };
        if (first && last)
          correlate([&](int64_t c, Vec v) { put(o * depth + c, v + start); });
        else if (first)
          correlate([&](int64_t c, Vec v) { Store(sums + c, v + start); });
        else if (last)
          correlate([&](int64_t c, Vec v) { put(o * depth + c, v + Load(sums + c)); });
        else
          correlate([&](int64_t c, Vec v) { Store(sums + c, v + Load(sums + c)); });
      }
    }
  }
};

}  // namespace
}  // namespace deepprism

#endif  // DEEPPRISM_TAPS_H_
