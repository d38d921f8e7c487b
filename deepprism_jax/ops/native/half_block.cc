// Half a residual block on CPUs: h = silu((x - mean) * slope + offset), y = conv(h) + bias
// (+ residual), and the moments of y that the next normalisation asks for; see
// `ops/half_block.py`.
//
// Lines of h, and on the way back of the gradient, are kept three at a time: an
// activation is read once and written once. What the next line needs is asked for while
// this one is computed.

#include "moments.h"
#include "scratch.h"
#include "silu.h"
#include "taps.h"

namespace deepprism {
namespace {

constexpr int kTaps = 9;

// The last three lines [W, C] of a map, each between two positions of zeros.
class Lines {
 public:
  Lines(int64_t width, int64_t channels)
      : channels_(channels), pitch_((width + 2) * channels), bytes_(3 * pitch_ * 4),
        values_(static_cast<float*>(Shelves::Take(bytes_))) {
    for (int64_t row = 0; row < 3; ++row) {
      std::fill_n(At(row) - channels_, channels_, 0.f);
      std::fill_n(At(row) + pitch_ - 2 * channels_, channels_, 0.f);
    }
  }
  ~Lines() { Shelves::Put(values_, bytes_); }
  Lines(const Lines&) = delete;

  float* At(int64_t row) { return values_ + (row + 3) % 3 * pitch_ + channels_; }

  void Clear(int64_t row) { std::fill_n(At(row), pitch_ - 2 * channels_, 0.f); }

 private:
  int64_t channels_, pitch_, bytes_;
  float* values_;
};

// Asks memory for a vector of channels before it is needed: a line from there takes as
// long as twenty vectors of a convolution.
template <bool kWrite, typename T>
inline void Prefetch(const T* p) {
  __builtin_prefetch(p, kWrite, 2);
}

// The affine map of the channels of one image.
struct Affine {
  const float *mean, *slope, *offset;

  Affine(const float* m, const float* s, const float* o, int64_t image, int64_t channels)
      : mean(m + image * channels), slope(s + image * channels),
        offset(o + image * channels) {}
};

// One line [W, C] of h and, where asked for, of the derivative of SiLU.
template <bool kDerivative, typename T>
void Activate(Affine map, const T* __restrict__ x, int64_t width, int64_t channels,
              float* __restrict__ h, float* __restrict__ derivative) {
  for (int64_t v = 0; v < width; ++v)
    for (int64_t c = 0; c < channels; c += kLanes) {
      const int64_t at = v * channels + c;
      const Vec before =
          (Load(x + at) - Load(map.mean + c)) * Load(map.slope + c) + Load(map.offset + c);
      const Vec sigmoid = Sigmoid(before), value = before * sigmoid;
      Store(h + at, value);
      if (kDerivative) Store(derivative + at, sigmoid + value * (1.f - sigmoid));
    }
}

// One line of what pulls on y: g + alpha + beta * y.
template <typename T>
void Total(const T* __restrict__ g, const T* __restrict__ y, const float* alpha,
           const float* beta, int64_t width, int64_t channels, float* __restrict__ total) {
  for (int64_t v = 0; v < width; ++v)
    for (int64_t c = 0; c < channels; c += kLanes) {
      const int64_t at = v * channels + c;
      Store(total + at, Load(g + at) + Load(alpha + c) + Load(beta + c) * Load(y + at));
    }
}

template <typename T>
void Copy(const float* __restrict__ from, int64_t count, T* __restrict__ to) {
  for (int64_t i = 0; i < count; i += kLanes) Store(to + i, Load(from + i));
}

// One line of the convolution of three lines that lie between zeros: calls put(v, c, sum)
// for every position v and channel c.
template <int kTurn, typename Put>
void Convolve(Position<kTaps>& position, const float* above, const float* here,
              const float* below, int64_t width, const Put& put) {
  const float* lines[3] = {above, here, below};
  const int64_t in = position.reads * position.depth;
  for (int64_t v = 0; v < width; ++v) {
    const auto rows_of = [&](int64_t i, const float** rows) {
      for (int64_t t = 0; t < kTaps; ++t)
        rows[t] = lines[t / 3] + (v + kTurn * (t % 3 - 1)) * in + i * position.depth;
    };
    position.template Write<float>(rows_of, [&](int64_t c, Vec sum) { put(v, c, sum); });
  }
}

template <typename T>
void Forward(ffi::ThreadPool& pool, const Shape& s, int64_t ends, const T* x,
             const float* mean, const float* slope, const float* offset,
             const float* kernel, const float* bias, const T* residual, T* y,
             float* y_mean, float* y_variance) {
  const auto w = Arrange(kernel, kTaps, s, false);
  const int64_t c_in = s.depth * s.fields_in, c_out = s.depth * s.fields_out;
  const Blocks blocks(s.batch, s.height);
  Moments moments(blocks, c_out);
  blocks.Run(pool, s.Cost(), [&](int64_t block, int64_t b, int64_t top, int64_t end) {
    const Affine map(mean, slope, offset, b, c_in);
    const auto position_of = [&](int64_t row) { return (b * s.height + row) * s.width; };
    Lines h(s.width, c_in);
    const auto fill = [&](int64_t row) {
      if (row < 0 || row >= s.height) return h.Clear(row);
      Activate<false>(map, x + position_of(row) * c_in, s.width, c_in, h.At(row), nullptr);
    };
    Position<kTaps> position{s.depth, ends, s.fields_in, s.fields_out, w, bias, {}};
    fill(top - 1);
    fill(top);
    for (int64_t row = top; row < end; ++row) {
      fill(row + 1);
      const T* other = residual + position_of(row) * c_out;
      T* line = y + position_of(row) * c_out;
      const T* next = x + position_of(row + 2) * c_in;
      Convolve<1>(position, h.At(row - 1), h.At(row), h.At(row + 1), s.width,
                  [&](int64_t v, int64_t c, Vec sum) {
                    const int64_t at = v * c_out + c;
                    Prefetch<false>(next + v * c_in + c);
                    Prefetch<true>(line + s.width * c_out + at);
                    Store(line + at, residual ? sum + Load(other + at) : sum);
                  });
      moments.Add(block, row == top, line, s.width);
    }
  });
  moments.Write(s.width, y_mean, y_variance);
}

// Sums of the backward pass, a block apart: added up in order.
class Sums {
 public:
  Sums(const Shape& s, int64_t blocks)
      : channels_(s.depth * s.fields_in),
        taps_(s.fields_in * s.fields_out * 3 * kTaps),
        size_(2 * channels_ + taps_ + s.fields_out), sums_(blocks * size_) {}

  double* Offset(int64_t block) { return &sums_[block * size_]; }
  double* Slope(int64_t block) { return Offset(block) + channels_; }
  double* Kernel(int64_t block) { return Slope(block) + channels_; }
  double* Bias(int64_t block) { return Kernel(block) + taps_; }

  // Of blocks from `first` to `end`, what lies where `at` does in the first of all.
  float Total(const double* at, int64_t first, int64_t end) const {
    double total = 0;
    for (int64_t block = first; block < end; ++block) total += at[block * size_];
    return static_cast<float>(total);
  }

 private:
  int64_t channels_, taps_, size_;
  Scratch<double> sums_;
};

// One line's part of the gradients of kernel and bias.
template <typename Ask>
inline void AddKernel(const Shape& s, int64_t ends, const float* above, const float* here,
                      const float* below, const float* total, double* of_kernel,
                      double* of_bias, const Ask& ask) {
  const float* lines[3] = {above, here, below};
  const int64_t in = s.depth * s.fields_in, out = s.depth * s.fields_out;
  for (int64_t pair = 0; pair < s.fields_in * s.fields_out; ++pair) {
    const int64_t i = pair / s.fields_out, o = pair % s.fields_out;
    Vec products[3 * kTaps] = {};
    for (int64_t v = 0; v < s.width; ++v) {
      const float* rows[kTaps];
      for (int64_t t = 0; t < kTaps; ++t)
        rows[t] = lines[t / 3] + (v + t % 3 - 1) * in + i * s.depth;
      Accumulate<kTaps>(rows, total + v * out + o * s.depth, s.depth, ends, products,
                        [&](int64_t c) { ask(v, c); });
    }
    for (int64_t n = 0; n < 3 * kTaps; ++n)
      of_kernel[pair * 3 * kTaps + n] += Sum(products[n]);
  }
  for (int64_t o = 0; o < s.fields_out; ++o) {
    Vec of_field{};
    for (int64_t v = 0; v < s.width; ++v)
      for (int64_t c = 0; c < s.depth; c += kLanes)
        of_field += Load(total + v * out + o * s.depth + c);
    of_bias[o] += Sum(of_field);
  }
}

template <typename T>
void Backward(ffi::ThreadPool& pool, const Shape& s, int64_t ends, const T* x,
              const float* mean, const float* slope, const float* offset,
              const float* kernel, const T* y, const float* alpha, const float* beta,
              const T* g, const T* addend, T* dx, float* dslope, float* doffset,
              float* dkernel, float* dbias, T* pulls) {
  const auto w = Arrange(kernel, kTaps, s, true);
  const int64_t c_in = s.depth * s.fields_in, c_out = s.depth * s.fields_out;
  const int64_t pairs = s.fields_in * s.fields_out;
  const int64_t adjoint_ends = ends == kReplicate ? kFolded : ends;
  const Scratch<float> none(s.fields_in);
  const Blocks blocks(s.batch, s.height);
  Sums sums(s, s.batch * blocks.count);
  blocks.Run(pool, 3 * s.Cost(), [&](int64_t block, int64_t b, int64_t top, int64_t end) {
    const Affine map(mean, slope, offset, b, c_in);
    const auto position_of = [&](int64_t row) { return (b * s.height + row) * s.width; };
    Lines h(s.width, c_in), derivative(s.width, c_in), total(s.width, c_out);
    RowSums affine(c_in, sums.Offset(block));  // of offset and slope
    const auto fill = [&](int64_t row) {
      if (row < 0 || row >= s.height) {
        h.Clear(row);
        total.Clear(row);
        return;
      }
      const int64_t first = position_of(row);
      Activate<true>(map, x + first * c_in, s.width, c_in, h.At(row), derivative.At(row));
      Total(g + first * c_out, y + first * c_out, alpha + b * c_out, beta + b * c_out,
            s.width, c_out, total.At(row));
    };
    Position<kTaps> position{s.depth,     adjoint_ends, s.fields_out,
                             s.fields_in, w,            none.data(), {}};
    fill(top - 1);
    fill(top);
    for (int64_t row = top; row < end; ++row) {
      fill(row + 1);
      const int64_t first = position_of(row), next = position_of(row + 2);
      AddKernel(s, ends, h.At(row - 1), h.At(row), h.At(row + 1), total.At(row),
                sums.Kernel(block), sums.Bias(block),
                [&](int64_t v, int64_t c) {
                  Prefetch<false>(x + (next + v) * c_in + c);
                  Prefetch<false>(y + (next + v) * c_out + c);
                });
      const T* read = x + first * c_in;
      const T* other = addend + first * c_in;
      T* line = dx + first * c_in;
      const float* slopes = derivative.At(row);
      Convolve<-1>(position, total.At(row + 1), total.At(row), total.At(row - 1), s.width,
                   [&](int64_t v, int64_t c, Vec dh) {
                     const int64_t at = v * c_in + c;
                     Prefetch<false>(g + (next + v) * c_out + c);
                     Prefetch<true>(line + s.width * c_in + at);
                     const Vec pull = dh * Load(slopes + at);
                     const Vec back = pull * Load(map.slope + c);
                     Store(line + at, addend ? back + Load(other + at) : back);
                     affine.Add(c, pull, pull * (Load(read + at) - Load(map.mean + c)));
                   });
      affine.Close();
      if (pulls) Copy(total.At(row), s.width * c_out, pulls + first * c_out);
    }
  });
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t c = 0; c < c_in; ++c) {
      const int64_t from = b * blocks.count, end = from + blocks.count;
      dslope[b * c_in + c] = sums.Total(sums.Slope(0) + c, from, end);
      doffset[b * c_in + c] = sums.Total(sums.Offset(0) + c, from, end);
    }
  const int64_t all = s.batch * blocks.count;
  for (int64_t t = 0; t < kTaps; ++t)
    for (int64_t k = 0; k < 3; ++k)
      for (int64_t pair = 0; pair < pairs; ++pair)
        dkernel[(t * 3 + k) * pairs + pair] =
            sums.Total(sums.Kernel(0) + (pair * 3 + k) * kTaps + t, 0, all);
  for (int64_t o = 0; o < s.fields_out; ++o)
    dbias[o] = sums.Total(sums.Bias(0) + o, 0, all);
}

using F32 = ffi::Buffer<ffi::F32>;
using Out = ffi::Result<F32>;

template <typename T>
const T* In(ffi::AnyBuffer a) {
  return static_cast<const T*>(a.untyped_data());
}

// What is left out comes as an array of no numbers.
template <typename T>
const T* InOrNull(ffi::AnyBuffer a) {
  return a.element_count() ? In<T>(a) : nullptr;
}

ffi::Error HalfBlock(ffi::ThreadPool pool, ffi::AnyBuffer x, F32 mean, F32 slope,
                     F32 offset, F32 kernel, F32 bias, ffi::AnyBuffer residual,
                     ffi::Result<ffi::AnyBuffer> y, Out y_mean, Out y_variance,
                     ffi::Span<const int64_t> shape, int64_t ends) {
  return ByType(x.element_type(), [&](auto zero) {
    using T = decltype(zero);
    Forward(pool, Shape(shape), ends, In<T>(x), mean.typed_data(), slope.typed_data(),
            offset.typed_data(), kernel.typed_data(), bias.typed_data(),
            InOrNull<T>(residual), static_cast<T*>(y->untyped_data()), y_mean->typed_data(),
            y_variance->typed_data());
  });
}

ffi::Error HalfBlockGradient(ffi::ThreadPool pool, ffi::AnyBuffer x, F32 mean, F32 slope,
                             F32 offset, F32 kernel, ffi::AnyBuffer y, F32 alpha,
                             F32 beta, ffi::AnyBuffer g, ffi::AnyBuffer addend,
                             ffi::Result<ffi::AnyBuffer> dx, Out dslope, Out doffset,
                             Out dkernel, Out dbias, ffi::Result<ffi::AnyBuffer> pulls,
                             ffi::Span<const int64_t> shape, int64_t ends) {
  return ByType(x.element_type(), [&](auto zero) {
    using T = decltype(zero);
    Backward(pool, Shape(shape), ends, In<T>(x), mean.typed_data(), slope.typed_data(),
             offset.typed_data(), kernel.typed_data(), In<T>(y), alpha.typed_data(),
             beta.typed_data(), In<T>(g), InOrNull<T>(addend),
             static_cast<T*>(dx->untyped_data()), dslope->typed_data(),
             doffset->typed_data(), dkernel->typed_data(), dbias->typed_data(),
             pulls->element_count() ? static_cast<T*>(pulls->untyped_data()) : nullptr);
  });
}

ffi::Error MomentsOf(ffi::ThreadPool pool, ffi::AnyBuffer x, Out mean, Out variance) {
  const auto d = x.dimensions();
  const int64_t width = d[2], channels = d[3], size = d[1] * d[2] * d[3];
  return ByType(x.element_type(), [&](auto zero) {
    using T = decltype(zero);
    const Blocks blocks(d[0], d[1]);
    Moments moments(blocks, channels);
    blocks.Run(pool, d[0] * size * 2, [&](int64_t block, int64_t b, int64_t top, int64_t end) {
      for (int64_t row = top; row < end; ++row)
        moments.Add(block, row == top, In<T>(x) + b * size + row * width * channels, width);
    });
    moments.Write(width, mean->typed_data(), variance->typed_data());
  });
}

}  // namespace
}  // namespace deepprism

XLA_FFI_DEFINE_HANDLER_SYMBOL(deepprism_moments, deepprism::MomentsOf,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(deepprism_half_block, deepprism::HalfBlock,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Attr<xla::ffi::Span<const int64_t>>("shape")
                                  .Attr<int64_t>("ends"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(deepprism_half_block_gradient, deepprism::HalfBlockGradient,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Attr<xla::ffi::Span<const int64_t>>("shape")
                                  .Attr<int64_t>("ends"));
