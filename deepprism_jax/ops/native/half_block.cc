// Half a residual block on CPUs: h = silu((x - mean) * slope + offset), y = conv(h) + bias
// (+ residual), and the moments of y that the next normalisation asks for; see
// `ops/half_block.py`.
//
// Lines of h, and on the way back of the gradient, are kept three at a time: an
// activation is read once and written once. What the next line needs is asked for while
// this one is computed.

#include <vector>

#include "moments.h"
#include "silu.h"
#include "taps.h"

namespace deepprism {
namespace {

constexpr int kTaps = 9;

// The last three lines [W, C] of a map, each between two positions of zeros.
class Lines {
 public:
  Lines(int64_t width, int64_t channels)
      : channels_(channels), pitch_((width + 2) * channels),
        values_(3 * pitch_ / kLanes) {}

  float* At(int64_t row) {
    return reinterpret_cast<float*>(values_.data()) + (row + 3) % 3 * pitch_ + channels_;
  }

  void Clear(int64_t row) { std::fill_n(At(row), pitch_ - 2 * channels_, 0.f); }

 private:
  int64_t channels_, pitch_;
  std::vector<Vec> values_;
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

template <bool kAdd, typename From, typename T>
void Put(const From* __restrict__ from, int64_t count, T* __restrict__ line) {
  for (int64_t i = 0; i < count; i += kLanes)
    Store(line + i, kAdd ? Load(line + i) + Load(from + i) : Load(from + i));
}

// One line of dx, what else pulls on x included, and its part of the gradients of slope
// and offset.
template <bool kAdd, typename T>
void Pull(Affine map, const T* __restrict__ x, const float* __restrict__ dh,
          const float* __restrict__ derivative, const T* __restrict__ addend,
          int64_t width, int64_t channels, T* __restrict__ dx, double* dslope,
          double* doffset) {
  for (int64_t c = 0; c < channels; c += kLanes) {
    const Vec slope = Load(map.slope + c), mean = Load(map.mean + c);
    Vec one{}, two{};
    for (int64_t v = 0; v < width; ++v) {
      const int64_t at = v * channels + c;
      const Vec pull = Load(dh + at) * Load(derivative + at);
      Store(dx + at, kAdd ? pull * slope + Load(addend + at) : pull * slope);
      one += pull;
      two += pull * (Load(x + at) - mean);
    }
    AddLanes(doffset + c, one);
    AddLanes(dslope + c, two);
  }
}

// One line of the convolution of three lines that lie between zeros.
template <int kTurn, typename T, typename Ask>
void Convolve(Position<kTaps>& position, const float* above, const float* here,
              const float* below, int64_t width, T* y, const Ask& ask) {
  const float* lines[3] = {above, here, below};
  const int64_t in = position.reads * position.depth;
  for (int64_t v = 0; v < width; ++v) {
    T* at = y + v * position.writes * position.depth;
    const auto rows_of = [&](int64_t i, const float** rows) {
      for (int64_t t = 0; t < kTaps; ++t)
        rows[t] = lines[t / 3] + (v + kTurn * (t % 3 - 1)) * in + i * position.depth;
    };
    position.template Write<float>(at, rows_of, [&](int64_t c) { ask(v, c); });
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
      T* line = y + position_of(row) * c_out;
      const T* next = x + position_of(row + 2) * c_in;
      Convolve<1>(position, h.At(row - 1), h.At(row), h.At(row + 1), s.width, line,
                  [&](int64_t v, int64_t c) {
                    Prefetch<false>(next + v * c_in + c);
                    Prefetch<true>(line + (s.width + v) * c_out + c);
                  });
      if (residual)
        Put<true>(residual + position_of(row) * c_out, s.width * c_out, line);
      moments.Add(block, row == top, line, s.width);
    }
  });
  moments.Write(s.width, y_mean, y_variance);
}

// Sums of the backward pass, a block apart: added up in order.
struct Sums {
  std::vector<double> slope, offset, kernel, bias;
};

// One line's part of the gradients of kernel and bias.
template <typename Ask>
inline void AddKernel(const Shape& s, int64_t ends, const float* above, const float* here,
                      const float* below, const float* total, Sums& sum, const Ask& ask) {
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
      sum.kernel[pair * 3 * kTaps + n] += Sum(products[n]);
  }
  for (int64_t o = 0; o < s.fields_out; ++o) {
    Vec of_field{};
    for (int64_t v = 0; v < s.width; ++v)
      for (int64_t c = 0; c < s.depth; c += kLanes)
        of_field += Load(total + v * out + o * s.depth + c);
    sum.bias[o] += Sum(of_field);
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
  const std::vector<float> none(s.fields_in);
  const Blocks blocks(s.batch, s.height);
  std::vector<Sums> sums(s.batch * blocks.count);
  blocks.Run(pool, 3 * s.Cost(), [&](int64_t block, int64_t b, int64_t top, int64_t end) {
    Sums& sum = sums[block];
    sum.slope.resize(c_in);
    sum.offset.resize(c_in);
    sum.kernel.resize(pairs * 3 * kTaps);
    sum.bias.resize(s.fields_out);
    const Affine map(mean, slope, offset, b, c_in);
    const auto position_of = [&](int64_t row) { return (b * s.height + row) * s.width; };
    Lines h(s.width, c_in), derivative(s.width, c_in), total(s.width, c_out);
    Lines dh(s.width, c_in);
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
      AddKernel(s, ends, h.At(row - 1), h.At(row), h.At(row + 1), total.At(row), sum,
                [&](int64_t v, int64_t c) {
                  Prefetch<false>(x + (next + v) * c_in + c);
                  Prefetch<false>(y + (next + v) * c_out + c);
                });
      Convolve<-1>(position, total.At(row + 1), total.At(row), total.At(row - 1), s.width,
                   dh.At(0), [&](int64_t v, int64_t c) {
                     Prefetch<false>(g + (next + v) * c_out + c);
                     Prefetch<true>(dx + (first + v) * c_in + c);
                   });
      if (pulls)
        Put<false>(total.At(row), s.width * c_out, pulls + first * c_out);
      const auto pull = addend ? Pull<true, T> : Pull<false, T>;
      pull(map, x + first * c_in, dh.At(0), derivative.At(row), addend + first * c_in,
           s.width, c_in, dx + first * c_in, sum.slope.data(), sum.offset.data());
    }
  });
  const auto add = [&](auto member, int64_t from, int64_t n, int64_t end) {
    double total = 0;
    for (int64_t i = from; i < end; ++i) total += (sums[i].*member)[n];
    return static_cast<float>(total);
  };
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t c = 0; c < c_in; ++c) {
      const int64_t from = b * blocks.count, end = from + blocks.count;
      dslope[b * c_in + c] = add(&Sums::slope, from, c, end);
      doffset[b * c_in + c] = add(&Sums::offset, from, c, end);
    }
  const int64_t all = s.batch * blocks.count;
  for (int64_t t = 0; t < kTaps; ++t)
    for (int64_t k = 0; k < 3; ++k)
      for (int64_t pair = 0; pair < pairs; ++pair)
        dkernel[(t * 3 + k) * pairs + pair] =
            add(&Sums::kernel, 0, (pair * 3 + k) * kTaps + t, all);
  for (int64_t o = 0; o < s.fields_out; ++o) dbias[o] = add(&Sums::bias, 0, o, all);
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
