// Group normalisation and SiLU on CPUs: two passes forward, two back.
//
// A feature map is [B, H, W, C], C a multiple of 16. Each image is cut into blocks of
// rows; a first pass takes sums a channel, which are added up in order, so that the
// result does not depend on the threads; a second pass writes.

#include <cmath>

#include "moments.h"
#include "scratch.h"
#include "silu.h"

namespace deepprism {
namespace {

struct Shape {
  int64_t batch, height, width, channels, groups;
  float eps;

  int64_t Blocks() const {
    return std::clamp<int64_t>(64 / std::max<int64_t>(batch, 1), 1, height);
  }
  int64_t Cost() const { return batch * height * width * channels * 16; }
};

// Calls work(image, block, first position, positions) for every block of every image.
template <typename Work>
void ForBlocks(ffi::ThreadPool& pool, const Shape& s, const Work& work) {
  const int64_t blocks = s.Blocks();
  ParallelFor(pool, s.batch * blocks, s.Cost(), [&](int64_t i) {
    const int64_t b = i / blocks, block = i % blocks;
    const int64_t top = s.height * block / blocks, end = s.height * (block + 1) / blocks;
    work(b, block, (b * s.height + top) * s.width, (end - top) * s.width);
  });
}

// Adds up [B, blocks, 2, C] over blocks and groups: sums of a group, [B, G, 2].
// Each channel is first multiplied by its `weight`, if there is one.
Scratch<double> OverGroups(const Shape& s, const Scratch<double>& sums,
                           const float* weight) {
  const int64_t members = s.channels / s.groups, blocks = s.Blocks();
  Scratch<double> total(s.batch * s.groups * 2);
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t block = 0; block < blocks; ++block)
      for (int64_t kind = 0; kind < 2; ++kind) {
        const double* from = &sums[((b * blocks + block) * 2 + kind) * s.channels];
        for (int64_t c = 0; c < s.channels; ++c)
          total[(b * s.groups + c / members) * 2 + kind] +=
              from[c] * (weight ? weight[c] : 1.f);
      }
  return total;
}

// y, and the mean and 1 / standard deviation of each channel's group: [B, C].
template <typename T, bool kSilu>
void Forward(ffi::ThreadPool& pool, const Shape& s, const T* x, const float* scale,
             const float* bias, T* y, float* mean, float* gain) {
  const int64_t channels = s.channels, blocks = s.Blocks();
  const int64_t members = channels / s.groups, positions = s.height * s.width;
  // Squares are taken about the group's mean at the first position of the image: near
  // enough to the mean that E[d^2] - E[d]^2 does not cancel.
  for (int64_t b = 0; b < s.batch; ++b) {
    Scratch<float> corner(channels);
    for (int64_t c = 0; c < channels; c += kLanes)
      Store(&corner[c], Load(x + b * positions * channels + c));
    for (int64_t c = 0; c < channels; ++c) {
      const float* group = &corner[c / members * members];
      float sum = 0;
      for (int64_t m = 0; m < members; ++m) sum += group[m];
      mean[b * channels + c] = sum / members;
    }
  }
  Scratch<double> sums(s.batch * blocks * 2 * channels);
  ForBlocks(pool, s, [&](int64_t b, int64_t block, int64_t first, int64_t count) {
    const float* shift = mean + b * channels;
    RowSums row(channels, &sums[(b * blocks + block) * 2 * channels]);
    for (int64_t p = first; p < first + count; ++p) {
      for (int64_t c = 0; c < channels; c += kLanes) {
        const Vec d = Load(x + p * channels + c) - Load(shift + c);
        row.Add(c, d, d * d);
      }
      if ((p + 1) % s.width == 0) row.Close();
    }
  });
  const auto total = OverGroups(s, sums, nullptr);
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t c = 0; c < channels; ++c) {
      const double* group = &total[(b * s.groups + c / members) * 2];
      const double d = group[0] / (positions * members);
      const double square = group[1] / (positions * members);
      const double variance = std::max(square - d * d, 0.0);
      mean[b * channels + c] += d;
      gain[b * channels + c] = 1.0 / std::sqrt(variance + s.eps);
    }
  ForBlocks(pool, s, [&](int64_t b, int64_t, int64_t first, int64_t count) {
    const float *m = mean + b * channels, *k = gain + b * channels;
    for (int64_t p = first; p < first + count; ++p)
      for (int64_t c = 0; c < channels; c += kLanes) {
        const Vec slope = Load(k + c) * Load(scale + c);
        Vec h = (Load(x + p * channels + c) - Load(m + c)) * slope + Load(bias + c);
        if (kSilu) h *= Sigmoid(h);
        Store(y + p * channels + c, h);
      }
  });
}

// dx, and the gradients of scale and bias: [C].
template <typename T, bool kSilu>
void Backward(ffi::ThreadPool& pool, const Shape& s, const T* x, const float* scale,
              const float* bias, const float* mean, const float* gain, const T* g,
              T* dx, float* dscale, float* dbias) {
  const int64_t channels = s.channels, blocks = s.Blocks();
  const int64_t members = channels / s.groups, positions = s.height * s.width;
  // Gradient of the affine map's output; `normed` is what the map was applied to.
  const auto pull = [&](int64_t p, int64_t c, Vec normed) {
    Vec dh = Load(g + p * channels + c);
    if (kSilu) {
      const Vec h = normed * Load(scale + c) + Load(bias + c);
      const Vec sigmoid = Sigmoid(h);
      dh *= sigmoid * (1.f + h * (1.f - sigmoid));
    }
    return dh;
  };
  const auto norm = [&](int64_t b, int64_t p, int64_t c) {
    const int64_t at = b * channels + c;
    return (Load(x + p * channels + c) - Load(mean + at)) * Load(gain + at);
  };
  // Kept in dx between the passes, but not in short floats.
  constexpr bool kKept = kSilu && sizeof(T) == 4;
  Scratch<double> sums(s.batch * blocks * 2 * channels);
  ForBlocks(pool, s, [&](int64_t b, int64_t block, int64_t first, int64_t count) {
    RowSums row(channels, &sums[(b * blocks + block) * 2 * channels]);
    for (int64_t p = first; p < first + count; ++p) {
      for (int64_t c = 0; c < channels; c += kLanes) {
        const Vec normed = norm(b, p, c), dh = pull(p, c, normed);
        if (kKept) Store(dx + p * channels + c, dh);
        row.Add(c, dh, dh * normed);
      }
      if ((p + 1) % s.width == 0) row.Close();
    }
  });
  const auto total = OverGroups(s, sums, scale);
  ForBlocks(pool, s, [&](int64_t b, int64_t, int64_t first, int64_t count) {
    Scratch<float> offset(channels), slope(channels);
    for (int64_t c = 0; c < channels; ++c) {
      const double* group = &total[(b * s.groups + c / members) * 2];
      offset[c] = group[0] / (positions * members);
      slope[c] = group[1] / (positions * members);
    }
    for (int64_t p = first; p < first + count; ++p)
      for (int64_t c = 0; c < channels; c += kLanes) {
        const Vec normed = norm(b, p, c);
        const Vec dh = kKept ? Load(dx + p * channels + c) : pull(p, c, normed);
        const Vec centred =
            dh * Load(scale + c) - Load(&offset[c]) - normed * Load(&slope[c]);
        Store(dx + p * channels + c, Load(gain + b * channels + c) * centred);
      }
  });
  for (int64_t c = 0; c < channels; ++c) {
    double offset = 0, slope = 0;
    for (int64_t block = 0; block < s.batch * blocks; ++block) {
      offset += sums[block * 2 * channels + c];
      slope += sums[(block * 2 + 1) * channels + c];
    }
    dbias[c] = offset;
    dscale[c] = slope;
  }
}

using F32 = ffi::Buffer<ffi::F32>;
using Out = ffi::Result<F32>;

Shape ShapeOf(ffi::AnyBuffer x, int64_t groups, float eps) {
  const auto d = x.dimensions();
  return {d[0], d[1], d[2], d[3], groups, eps};
}

ffi::Error GroupNorm(ffi::ThreadPool pool, ffi::AnyBuffer x, F32 scale, F32 bias,
                     ffi::Result<ffi::AnyBuffer> y, Out mean, Out gain, int64_t groups,
                     float eps, bool silu) {
  return ByType(x.element_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto forward = silu ? Forward<T, true> : Forward<T, false>;
    forward(pool, ShapeOf(x, groups, eps), static_cast<const T*>(x.untyped_data()),
            scale.typed_data(), bias.typed_data(), static_cast<T*>(y->untyped_data()),
            mean->typed_data(), gain->typed_data());
  });
}

ffi::Error GroupNormGradient(ffi::ThreadPool pool, ffi::AnyBuffer x, F32 scale, F32 bias,
                             F32 mean, F32 gain, ffi::AnyBuffer g,
                             ffi::Result<ffi::AnyBuffer> dx, Out dscale, Out dbias,
                             int64_t groups, bool silu) {
  return ByType(x.element_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto backward = silu ? Backward<T, true> : Backward<T, false>;
    backward(pool, ShapeOf(x, groups, 0.f), static_cast<const T*>(x.untyped_data()),
             scale.typed_data(), bias.typed_data(), mean.typed_data(),
             gain.typed_data(), static_cast<const T*>(g.untyped_data()),
             static_cast<T*>(dx->untyped_data()), dscale->typed_data(),
             dbias->typed_data());
  });
}

}  // namespace
}  // namespace deepprism

XLA_FFI_DEFINE_HANDLER_SYMBOL(deepprism_group_norm, deepprism::GroupNorm,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Attr<int64_t>("groups")
                                  .Attr<float>("eps")
                                  .Attr<bool>("silu"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(deepprism_group_norm_gradient,
                              deepprism::GroupNormGradient,
                              xla::ffi::Ffi::Bind()
                                  .Ctx<xla::ffi::ThreadPool>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Arg<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::AnyBuffer>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Ret<xla::ffi::Buffer<xla::ffi::F32>>()
                                  .Attr<int64_t>("groups")
                                  .Attr<bool>("silu"));
