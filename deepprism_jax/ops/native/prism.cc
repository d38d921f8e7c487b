// The channel convolution on CPUs: the three bilinear maps of `ops/formulation.py`.
//
// Space is padded with zeros by pointing at a row of zeros.

#include "scratch.h"
#include "taps.h"

namespace deepprism {
namespace {

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

template <int N, typename T>
void Conv(ffi::ThreadPool& pool, const Shape& s, int64_t ends, const T* x,
          const T* kernel, T* y) {
  const auto w = Arrange(kernel, N, s, false);
  const Scratch<T> zeros(s.depth);
  const Scratch<float> none(s.fields_out);
  const int64_t c_in = s.depth * s.fields_in, c_out = s.depth * s.fields_out;
  ParallelFor(pool, s.batch * s.out_height, s.Cost(), [&](int64_t line) {
    const T* image = x + line / s.out_height * s.height * s.width * c_in;
    const int64_t top = line % s.out_height * s.row_stride - kSide<N> / 2;
    Position<N> position{s.depth, ends, s.fields_in, s.fields_out, w, none.data(), {}};
    for (int64_t v = 0; v < s.out_width; ++v) {
      const int64_t left = v * s.column_stride - kSide<N> / 2;
      T* at = y + (line * s.out_width + v) * c_out;
      const auto rows_of = [&](int64_t i, const T** rows) {
        const Field<T> field{image + i * s.depth, s.height, s.width, c_in, zeros.data()};
        for (int64_t t = 0; t < N; ++t)
          rows[t] = field.At(top + t / kSide<N>, left + t % kSide<N>);
      };
      position.template Write<T>(rows_of, [&](int64_t c, Vec v) { Store(at + c, v); });
    }
  });
}

template <int N, typename T>
void InputGradient(ffi::ThreadPool& pool, const Shape& s, int64_t ends, const T* g,
                   const T* kernel, T* dx) {
  if (ends == kReplicate) ends = kFolded;
  const auto w = Arrange(kernel, N, s, true);
  const Scratch<T> zeros(s.depth);
  const Scratch<float> none(s.fields_in);
  const int64_t c_in = s.depth * s.fields_in, c_out = s.depth * s.fields_out;
  ParallelFor(pool, s.batch * s.height, s.Cost(), [&](int64_t line) {
    const T* image = g + line / s.height * s.out_height * s.out_width * c_out;
    const int64_t bottom = line % s.height + kSide<N> / 2;
    const bool strided = s.row_stride != 1 || s.column_stride != 1;
    Position<N> position{s.depth, ends, s.fields_out, s.fields_in, w, none.data(), {}};
    for (int64_t v = 0; v < s.width; ++v) {
      const int64_t right = v + kSide<N> / 2;
      T* at = dx + (line * s.width + v) * c_in;
      const auto rows_of = [&](int64_t o, const T** rows) {
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
      };
      position.template Write<T>(rows_of, [&](int64_t c, Vec v) { Store(at + c, v); });
    }
  });
}

template <int N, typename T>
void KernelGradient(ffi::ThreadPool& pool, const Shape& s, int64_t ends, const T* x,
                    const T* g, T* dk) {
  const int64_t pairs = s.fields_in * s.fields_out, lines = s.batch * s.out_height;
  const int64_t c_in = s.depth * s.fields_in, c_out = s.depth * s.fields_out;
  const Scratch<T> zeros(s.depth);
  // A sum a block, added up in order: the result does not depend on the threads.
  const int64_t blocks = std::min<int64_t>(lines, 64);
  Scratch<double> sums(blocks * pairs * 3 * N);
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
          Accumulate<N>(rows, at, s.depth, ends, total, AskNothing());
        }
        for (int64_t n = 0; n < 3 * N; ++n) sum[pair * 3 * N + n] += Sum(total[n]);
      }
    }
  });
  Scratch<float> ordered(N * 3 * pairs + kLanes);
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
