// The channel convolution on CPUs: the three bilinear maps of `ops/formulation.py`.
//
// A feature map is [B, H, W, F * D], field-major, D a multiple of 16. A tap along the
// channel axis is a shift of whole vectors in registers, so that a loaded vector serves
// three taps; space is padded with zeros by pointing at a row of zeros.

#include <vector>

#include "vector.h"

namespace deepprism {
namespace {

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
inline Taps Multiply(const T* const* rows, int64_t c, const float* w) {
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

// y[c] (+)= sum over taps t, k of w[k][t] * rows[t][c + k - 1].
template <int N, bool kAdd, typename T, typename Y>
void Correlate(const T* const* rows, const float* w, int64_t depth, int64_t ends,
               Y* y) {
  auto put = [&](int64_t c, Vec v) { Store(y + c, kAdd ? v + Load(y + c) : v); };
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
template <int N, typename T>
inline void Accumulate(const T* const* rows, const T* g, int64_t depth, int64_t ends,
                       Vec* total) {
  Vec before = ends == kCircular ? Load(g + depth - kLanes) : Vec{};
  Vec at = Load(g);
  for (int64_t c = 0; c < depth; c += kLanes) {
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

// The channels of one field at a position, or zeros outside of the map.
template <typename T>
struct Field {
  const T* start;
  int64_t height, width, channels;
  const T* zeros;

  const T* At(int64_t h, int64_t w) const {
    const bool inside = h >= 0 && h < height && w >= 0 && w < width;
    return inside ? start + (h * width + w) * channels : zeros;
  }
};

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

// Sums the correlations of all fields that are read into each that is written. Sums of
// several fields, and those of short floats, are made in `scratch`.
template <int N, typename T>
struct Position {
  int64_t depth, ends, reads, writes;
  const std::vector<float>& w;
  std::vector<float> scratch;

  template <typename RowsOf>
  void Write(T* y, const RowsOf& rows_of) {
    if constexpr (sizeof(T) == 4) {
      if (reads == 1) {
        const T* rows[N];
        rows_of(0, rows);
        for (int64_t o = 0; o < writes; ++o)
          Correlate<N, false>(rows, &w[o * 3 * N], depth, ends, y + o * depth);
        return;
      }
    }
    scratch.resize(writes * depth);
    for (int64_t i = 0; i < reads; ++i) {
      const T* rows[N];
      rows_of(i, rows);
      for (int64_t o = 0; o < writes; ++o) {
        const float* weights = &w[(o * reads + i) * 3 * N];
        float* out = &scratch[o * depth];
        if (i == 0)
          Correlate<N, false>(rows, weights, depth, ends, out);
        else
          Correlate<N, true>(rows, weights, depth, ends, out);
      }
    }
    for (int64_t c = 0; c < writes * depth; c += kLanes) Store(y + c, Load(&scratch[c]));
  }
};

template <int N, typename T>
void Conv(ffi::ThreadPool& pool, const Shape& s, int64_t ends, const T* x,
          const T* kernel, T* y) {
  const auto w = Arrange(kernel, N, s, false);
  const std::vector<T> zeros(s.depth);
  const int64_t c_in = s.depth * s.fields_in, c_out = s.depth * s.fields_out;
  ParallelFor(pool, s.batch * s.out_height, s.Cost(), [&](int64_t line) {
    const T* image = x + line / s.out_height * s.height * s.width * c_in;
    const int64_t top = line % s.out_height * s.row_stride - kSide<N> / 2;
    Position<N, T> position{s.depth, ends, s.fields_in, s.fields_out, w, {}};
    for (int64_t v = 0; v < s.out_width; ++v) {
      const int64_t left = v * s.column_stride - kSide<N> / 2;
      position.Write(y + (line * s.out_width + v) * c_out, [&](int64_t i, const T** rows) {
        const Field<T> field{image + i * s.depth, s.height, s.width, c_in, zeros.data()};
        for (int64_t t = 0; t < N; ++t)
          rows[t] = field.At(top + t / kSide<N>, left + t % kSide<N>);
      });
    }
  });
}

template <int N, typename T>
void InputGradient(ffi::ThreadPool& pool, const Shape& s, int64_t ends, const T* g,
                   const T* kernel, T* dx) {
  if (ends == kReplicate) ends = kFolded;
  const auto w = Arrange(kernel, N, s, true);
  const std::vector<T> zeros(s.depth);
  const int64_t c_in = s.depth * s.fields_in, c_out = s.depth * s.fields_out;
  ParallelFor(pool, s.batch * s.height, s.Cost(), [&](int64_t line) {
    const T* image = g + line / s.height * s.out_height * s.out_width * c_out;
    const int64_t bottom = line % s.height + kSide<N> / 2;
    const bool strided = s.row_stride != 1 || s.column_stride != 1;
    Position<N, T> position{s.depth, ends, s.fields_out, s.fields_in, w, {}};
    for (int64_t v = 0; v < s.width; ++v) {
      const int64_t right = v + kSide<N> / 2;
      position.Write(dx + (line * s.width + v) * c_in, [&](int64_t o, const T** rows) {
        const Field<T> field{image + o * s.depth, s.out_height, s.out_width, c_out,
                             zeros.data()};
        for (int64_t t = 0; t < N; ++t) {
          const int64_t h = bottom - t / kSide<N>, c = right - t % kSide<N>;
          if (!strided)
            rows[t] = field.At(h, c);
          else if (h % s.row_stride || c % s.column_stride)
            rows[t] = field.zeros;
          else
            rows[t] = field.At(h / s.row_stride, c / s.column_stride);
        }
      });
    }
  });
}

template <int N, typename T>
void KernelGradient(ffi::ThreadPool& pool, const Shape& s, int64_t ends, const T* x,
                    const T* g, T* dk) {
  const int64_t pairs = s.fields_in * s.fields_out, lines = s.batch * s.out_height;
  const int64_t c_in = s.depth * s.fields_in, c_out = s.depth * s.fields_out;
  const std::vector<T> zeros(s.depth);
  // A sum a block, added up in order: the result does not depend on the threads.
  const int64_t blocks = std::min<int64_t>(lines, 64);
  std::vector<double> sums(blocks * pairs * 3 * N);
  ParallelFor(pool, blocks, s.Cost(), [&](int64_t block) {
    double* sum = &sums[block * pairs * 3 * N];
    for (int64_t line = lines * block / blocks; line < lines * (block + 1) / blocks;
         ++line) {
      const T* image = x + line / s.out_height * s.height * s.width * c_in;
      const int64_t top = line % s.out_height * s.row_stride - kSide<N> / 2;
      for (int64_t pair = 0; pair < pairs; ++pair) {
        const int64_t i = pair / s.fields_out, o = pair % s.fields_out;
        const Field<T> field{image + i * s.depth, s.height, s.width, c_in, zeros.data()};
        Vec total[3 * N] = {};
        for (int64_t v = 0; v < s.out_width; ++v) {
          const int64_t left = v * s.column_stride - kSide<N> / 2;
          const T* rows[N];
          for (int64_t t = 0; t < N; ++t)
            rows[t] = field.At(top + t / kSide<N>, left + t % kSide<N>);
          const T* at = g + (line * s.out_width + v) * c_out + o * s.depth;
          Accumulate<N>(rows, at, s.depth, ends, total);
        }
        for (int64_t n = 0; n < 3 * N; ++n) sum[pair * 3 * N + n] += Sum(total[n]);
      }
    }
  });
  std::vector<float> ordered(N * 3 * pairs + kLanes);
  for (int64_t t = 0; t < N; ++t)
    for (int64_t k = 0; k < 3; ++k)
      for (int64_t pair = 0; pair < pairs; ++pair) {
        double sum = 0;
        for (int64_t block = 0; block < blocks; ++block)
          sum += sums[(block * pairs + pair) * 3 * N + k * N + t];
        ordered[(t * 3 + k) * pairs + pair] = static_cast<float>(sum);
      }
  if constexpr (sizeof(T) == 4) {
    std::copy_n(ordered.data(), N * 3 * pairs, dk);
  } else {
    for (int64_t n = 0; n < N * 3 * pairs; ++n) {
      Brain rounded[kLanes];
      Store(rounded, Load(&ordered[n]));
      dk[n] = rounded[0];
    }
  }
}

enum Map : int64_t { kConv, kInputGradient, kKernelGradient };

template <int N, typename T>
void Run(ffi::ThreadPool& pool, const Shape& s, int64_t ends, int64_t map, const T* left,
         const T* right, T* result) {
  if (map == kConv) Conv<N>(pool, s, ends, left, right, result);
  if (map == kInputGradient) InputGradient<N>(pool, s, ends, left, right, result);
  if (map == kKernelGradient) KernelGradient<N>(pool, s, ends, left, right, result);
}

ffi::Error Prism(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b,
                 ffi::Result<ffi::AnyBuffer> out, ffi::Span<const int64_t> shape,
                 int64_t ends, int64_t map) {
  const Shape s(shape);
  return ByType(a.element_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto run = s.rows * s.columns == 9 ? Run<9, T> : Run<1, T>;
    run(pool, s, ends, map, static_cast<const T*>(a.untyped_data()),
        static_cast<const T*>(b.untyped_data()), static_cast<T*>(out->untyped_data()));
  });
}

}  // namespace
}  // namespace deepprism

XLA_FFI_DEFINE_HANDLER_SYMBOL(deepprism_prism, deepprism::Prism,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<xla::ffi::Span<const int64_t>>("shape")
                                  .Attr<int64_t>("ends")
                                  .Attr<int64_t>("map"));
