// The depthwise convolution on CPUs: forward, which is the input gradient too with the
// kernel turned around, and the kernel gradient.
//
// A channel meets only itself, so that 16 of them are a vector and a tap is one
// multiplication. Lines are copied once into a ring of as many as the kernel is high,
// in float32, with zeros around them, and 16 channels at a time: there a vector that is
// loaded serves every tap of its line, and no edge is a special case.

#include "scratch.h"
#include "vector.h"

namespace deepprism {
namespace {

// Positions that are computed together: sums that stay in registers.
constexpr int64_t kTogether = 8;

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Images of several models, [models, batch, height, width, channels].
struct Shape {
  int64_t models, batch, height, width, channels;

  explicit Shape(ffi::Span<const int64_t> d)
      : models(1), batch(d[d.size() - 4]), height(d[d.size() - 3]),
        width(d[d.size() - 2]), channels(d[d.size() - 1]) {
    for (size_t i = 0; i + 4 < d.size(); ++i) models *= d[i];
  }

  int64_t Vectors() const { return RoundUp(channels, kLanes) / kLanes; }
  int64_t Lines() const { return batch * height; }
  // Pieces of a model's lines; by the shape alone, so that sums do not depend on the
  // threads. Each reads some lines that its neighbours read too: not too few of them.
  int64_t Pieces() const { return std::clamp<int64_t>(Lines() / 8, 1, 64); }
};

// The first `count` of 16 numbers, and zeros for the others.
template <typename T>
inline Vec LoadSome(const T* p, int64_t count) {
  if (count >= kLanes) return Load(p);
  T some[kLanes] = {};
  std::memcpy(some, p, count * sizeof(T));
  return Load(some);
}

template <typename T>
inline void StoreSome(T* p, Vec v, int64_t count) {
  if (count >= kLanes) return Store(p, v);
  T some[kLanes];
  Store(some, v);
  std::memcpy(p, some, count * sizeof(T));
}

// Copies [count, channels] to [vectors, span, 16], from position `first` of each span.
template <typename T>
void Pack(const T* from, int64_t count, int64_t channels, int64_t span, int64_t first,
          float* to) {
  for (int64_t p = 0; p < count; ++p)
    for (int64_t c = 0; c < channels; c += kLanes)
      Store(to + (c * span + (first + p) * kLanes),
            LoadSome(from + p * channels + c, channels - c));
}

// The lines of an image that the kernel meets around one of them.
template <int K, typename T>
class Ring {
 public:
  explicit Ring(const Shape& s)
      : s_(s), span_(RoundUp(s.width, kTogether) + K - 1),
        size_(s.Vectors() * span_ * kLanes), zeros_(span_ * kLanes), lines_(K * size_) {}

  // Turns to a line, counted over the images of x, of which some may be there already.
  void Turn(const T* x, int64_t line) {
    const int64_t h = line % s_.height;
    for (int i = 0; i < K; ++i) {
      const int64_t above = h + i - K / 2, wanted = line + i - K / 2;
      inside_[i] = above >= 0 && above < s_.height;
      if (!inside_[i]) continue;
      const int64_t slot = slot_[i] = above % K;
      if (held_[slot] == wanted + 1) continue;
      held_[slot] = wanted + 1;
      Pack(x + wanted * s_.width * s_.channels, s_.width, s_.channels, span_, K / 2,
           &lines_[slot * size_]);
    }
  }

  // K pointers to the channels from c on; each position is followed by the next.
  void Rows(int64_t c, const float** rows) const {
    for (int i = 0; i < K; ++i)
      rows[i] = inside_[i] ? &lines_[slot_[i] * size_ + c * span_] : zeros_.data();
  }

 private:
  const Shape& s_;
  int64_t span_, size_;
  Scratch<float> zeros_, lines_;
  int64_t slot_[K], held_[K] = {};
  bool inside_[K];
};

// Calls work(model, piece, first line, end) for every piece of every model.
template <typename Work>
void ForPieces(ffi::ThreadPool& pool, const Shape& s, int64_t taps, const Work& work) {
  const int64_t pieces = s.Pieces(), lines = s.Lines();
  const int64_t cost = s.models * lines * s.width * s.channels * taps;
  ParallelFor(pool, s.models * pieces, cost, [&](int64_t i) {
    const int64_t piece = i % pieces;
    work(i / pieces, piece, lines * piece / pieces, lines * (piece + 1) / pieces);
  });
}

template <int K>
inline __attribute__((always_inline)) void Correlate(const float* const* rows,
                                                     const float* w, Vec* sum) {
  for (int i = 0; i < K; ++i) {
    Vec tap[K];
#pragma GCC unroll 5
    for (int j = 0; j < K; ++j) tap[j] = Load(w + (i * K + j) * kLanes);
#pragma GCC unroll 12
    for (int p = 0; p < kTogether + K - 1; ++p) {
      const Vec x = Load(rows[i] + p * kLanes);
#pragma GCC unroll 5
      for (int j = 0; j < K; ++j)
        if (p >= j && p - j < kTogether) sum[p - j] += x * tap[j];
    }
  }
}

template <int K, typename T>
void Conv(ffi::ThreadPool& pool, const Shape& s, const T* x, const T* kernel, T* y) {
  const int64_t map = s.Lines() * s.width * s.channels;
  ForPieces(pool, s, K * K, [&](int64_t model, int64_t, int64_t line, int64_t end) {
    Scratch<float> w(s.Vectors() * K * K * kLanes);
    Pack(kernel + model * K * K * s.channels, K * K, s.channels, K * K, 0, w.data());
    Ring<K, T> ring(s);
    for (; line < end; ++line) {
      ring.Turn(x + model * map, line);
      T* row = y + model * map + line * s.width * s.channels;
      for (int64_t c = 0; c < s.channels; c += kLanes) {
        const float* rows[K];
        ring.Rows(c, rows);
        for (int64_t p = 0; p < s.width; p += kTogether) {
          Vec sum[kTogether] = {};
          Correlate<K>(rows, &w[c * K * K], sum);
#pragma GCC unroll 8
          for (int64_t n = 0; n < kTogether; ++n)
            if (p + n < s.width)
              StoreSome(row + (p + n) * s.channels + c, sum[n], s.channels - c);
          for (const float*& at : rows) at += kTogether * kLanes;
        }
      }
    }
  });
}

// Products of one line of g and R lines of x around it, summed along the line.
template <int K, int R>
inline void AccumulateRows(const float* const* rows, const float* g, int64_t width,
                           double* total) {
  Vec sum[R * K] = {};
  for (int64_t p = 0; p < width * kLanes; p += kLanes) {
    const Vec at = Load(g + p);
#pragma GCC unroll 3
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 5
      for (int j = 0; j < K; ++j)
        sum[i * K + j] += Load(rows[i] + p + j * kLanes) * at;
  }
#pragma GCC unroll 15
  for (int t = 0; t < R * K; ++t)
    for (int64_t l = 0; l < kLanes; ++l) total[t * kLanes + l] += sum[t][l];
}

// The same of all K, as many at once as there are registers for.
template <int K>
inline void Accumulate(const float* const* rows, const float* g, int64_t width,
                       double* total) {
  AccumulateRows<K, 3>(rows, g, width, total);
  if constexpr (K > 3)
    AccumulateRows<K, K - 3>(rows + 3, g, width, total + 3 * K * kLanes);
}

template <int K, typename T>
void KernelGradient(ffi::ThreadPool& pool, const Shape& s, const T* x, const T* g,
                    T* dkernel) {
  const int64_t map = s.Lines() * s.width * s.channels, pieces = s.Pieces();
  const int64_t size = s.Vectors() * K * K * kLanes;
  Scratch<double> sums(s.models * pieces * size);
  ForPieces(pool, s, K * K, [&](int64_t model, int64_t piece, int64_t line, int64_t end) {
    Ring<K, T> ring(s);
    Scratch<float> packed(s.Vectors() * s.width * kLanes);
    double* total = &sums[(model * pieces + piece) * size];
    for (; line < end; ++line) {
      ring.Turn(x + model * map, line);
      Pack(g + model * map + line * s.width * s.channels, s.width, s.channels, s.width,
           0, packed.data());
      for (int64_t c = 0; c < s.channels; c += kLanes) {
        const float* rows[K];
        ring.Rows(c, rows);
        Accumulate<K>(rows, &packed[c * s.width], s.width, total + c * K * K);
      }
    }
  });
  for (int64_t model = 0; model < s.models; ++model)
    for (int64_t c = 0; c < s.channels; c += kLanes)
      for (int64_t t = 0; t < K * K; ++t) {
        Vec sum;
        for (int64_t l = 0; l < kLanes; ++l) {
          double total = 0;
          for (int64_t piece = 0; piece < pieces; ++piece)
            total += sums[(model * pieces + piece) * size + (c * K * K + t * kLanes) + l];
          sum[l] = static_cast<float>(total);
        }
        StoreSome(dkernel + (model * K * K + t) * s.channels + c, sum, s.channels - c);
      }
}

template <int K, typename T>
void Run(ffi::ThreadPool& pool, const Shape& s, bool gradient, const T* a, const T* b,
         T* result) {
  (gradient ? KernelGradient<K, T> : Conv<K, T>)(pool, s, a, b, result);
}

ffi::Error Depthwise(ffi::ThreadPool pool, ffi::AnyBuffer a, ffi::AnyBuffer b,
                     ffi::Result<ffi::AnyBuffer> out, int64_t size, bool gradient) {
  const Shape s(a.dimensions());
  return ByType(a.element_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto run = size == 5 ? Run<5, T> : Run<3, T>;
    run(pool, s, gradient, static_cast<const T*>(a.untyped_data()),
        static_cast<const T*>(b.untyped_data()), static_cast<T*>(out->untyped_data()));
  });
}

}  // namespace
}  // namespace deepprism

XLA_FFI_DEFINE_HANDLER_SYMBOL(deepprism_depthwise, deepprism::Depthwise,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<int64_t>("size")
                                  .Attr<bool>("gradient"));
