// Mean and variance a channel of an image, from sums over blocks of its lines.

#ifndef DEEPPRISM_MOMENTS_H_
#define DEEPPRISM_MOMENTS_H_

#include "scratch.h"
#include "vector.h"

namespace deepprism {
namespace {

// The rows of each image, cut into blocks that do not depend on the number of threads.
struct Blocks {
  int64_t batch, height, count;

  Blocks(int64_t batch, int64_t height)
      : batch(batch), height(height),
        count(std::clamp<int64_t>(16 / std::max<int64_t>(batch, 1), 1,
                                  std::max<int64_t>(height / 8, 1))) {}

  int64_t Top(int64_t block) const { return height * block / count; }

  // Calls work(index, image, first row, end row) for every block of every image.
  template <typename Work>
  void Run(ffi::ThreadPool& pool, int64_t cost, const Work& work) const {
    ParallelFor(pool, batch * count, cost, [&](int64_t i) {
      work(i, i / count, Top(i % count), Top(i % count + 1));
    });
  }
};

// total[lane] += v[lane].
inline void AddLanes(double* total, Vec v) {
  float lanes[kLanes];
  Store(lanes, v);
  for (int64_t i = 0; i < kLanes; ++i) total[i] += lanes[i];
}

// Two sums a channel: of one row of positions in float, of the rows in double.
class RowSums {
 public:
  RowSums(int64_t channels, double* total)
      : channels_(channels), row_(2 * channels), total_(total) {}

  void Add(int64_t c, Vec one, Vec two) {
    Store(&row_[c], Load(&row_[c]) + one);
    Store(&row_[channels_ + c], Load(&row_[channels_ + c]) + two);
  }

  void Close() {
    for (int64_t c = 0; c < 2 * channels_; ++c) total_[c] += row_[c];
    std::fill(row_.begin(), row_.end(), 0.f);
  }

 private:
  int64_t channels_;
  Scratch<float> row_;
  double* total_;
};

// Deviations are taken from the first position of a block, which is near enough to the
// mean that E[d^2] - E[d]^2 does not cancel; then blocks are merged (Chan et al., 1979).
class Moments {
 public:
  Moments(const Blocks& blocks, int64_t channels)
      : blocks_(blocks), channels_(channels),
        sums_(blocks.batch * blocks.count * 2 * channels),
        shifts_(blocks.batch * blocks.count * channels) {}

  // Adds a line [W, C] of a block.
  template <typename T>
  void Add(int64_t block, bool first, const T* line, int64_t width) {
    double* sum = &sums_[block * 2 * channels_];
    float* shift = &shifts_[block * channels_];
    const int64_t channels = channels_;
    for (int64_t c = 0; c < channels; c += kLanes) {
      if (first) Store(shift + c, Load(line + c));
      const Vec about = Load(shift + c);
      Vec one{}, two{};
      for (int64_t v = 0; v < width; ++v) {
        const Vec d = Load(line + v * channels + c) - about;
        one += d;
        two += d * d;
      }
      AddLanes(sum + c, one);
      AddLanes(sum + channels + c, two);
    }
  }

  // Writes mean and variance: [B, C].
  void Write(int64_t width, float* mean, float* variance) const {
    for (int64_t b = 0; b < blocks_.batch; ++b)
      for (int64_t c = 0; c < channels_; ++c) {
        double count = 0, centre = 0, spread = 0;
        for (int64_t k = 0; k < blocks_.count; ++k) {
          const int64_t block = b * blocks_.count + k;
          const double n = (blocks_.Top(k + 1) - blocks_.Top(k)) * width;
          const double* sum = &sums_[block * 2 * channels_ + c];
          const double offset = sum[0] / n;
          const double apart = shifts_[block * channels_ + c] + offset - centre;
          spread += sum[channels_] - offset * sum[0] + apart * apart * count * n / (count + n);
          count += n;
          centre += apart * n / count;
        }
        mean[b * channels_ + c] = centre;
        variance[b * channels_ + c] = std::max(spread / count, 0.0);
      }
  }

 private:
  Blocks blocks_;
  int64_t channels_;
  Scratch<double> sums_;
  Scratch<float> shifts_;
};

}  // namespace
}  // namespace deepprism

#endif  // DEEPPRISM_MOMENTS_H_
