// What the kernels share: vectors of 16 channels, and a loop over threads.

#ifndef DEEPPRISM_VECTOR_H_
#define DEEPPRISM_VECTOR_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>

#include "xla/ffi/api/ffi.h"

namespace deepprism {

namespace ffi = xla::ffi;

constexpr int64_t kLanes = 16;
typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));

// A 16-bit brain float: the upper half of a float.
struct Brain {
  uint16_t bits;
};

inline Vec Load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

inline void Store(float* p, Vec v) { std::memcpy(p, &v, sizeof(v)); }

inline Vec Load(const Brain* p) {
  typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
  Halves halves;
  std::memcpy(&halves, p, sizeof(halves));
  return (Vec)(__builtin_convertvector(halves, Ints) << 16);
}

// Rounds to the nearest, ties to even; what is not a number stays none.
inline void Store(Brain* p, Vec v) {
  typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
  typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
  Words bits = (Words)v;
  Words rounded = bits + 0x7fff + ((bits >> 16) & 1);
  Words quiet = bits | 0x400000;
  Words chosen = v != v ? quiet : rounded;
  Halves halves = __builtin_convertvector(chosen >> 16, Halves);
  std::memcpy(p, &halves, sizeof(halves));
}

inline Vec Splat(float a) { return a - Vec{}; }

inline float Sum(Vec v) {
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}

// Calls work with a zero of the type of an array's numbers.
template <typename Work>
ffi::Error ByType(ffi::DataType type, const Work& work) {
  if (type == ffi::F32)
    work(float{});
  else if (type == ffi::BF16)
    work(Brain{});
  else
    return ffi::Error::InvalidArgument("the kernels take float32 or bfloat16");
  return ffi::Error::Success();
}

// Work of fewer multiplications than this is done before a second thread has woken up.
constexpr int64_t kWorthAThread = 1 << 18;

// Runs work(0) ... work(count - 1), each once, on this thread and on idle ones.
template <typename Work>
void ParallelFor(ffi::ThreadPool& pool, int64_t count, int64_t cost, const Work& work) {
  int64_t helpers =
      cost < kWorthAThread ? 0 : std::min<int64_t>(pool.num_threads(), count) - 1;
  if (helpers < 1) {
    for (int64_t i = 0; i < count; ++i) work(i);
    return;
  }
  struct Progress {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable finished;
  };
  // Shared, because a helper may start after all is done: it finds no work and leaves.
  auto progress = std::make_shared<Progress>();
  auto run = [progress, job = &work, count] {
    for (int64_t i; (i = progress->next.fetch_add(1)) < count;) {
      (*job)(i);
      if (progress->done.fetch_add(1) + 1 == count) {
        std::lock_guard<std::mutex> lock(progress->mutex);
        progress->finished.notify_all();
      }
    }
  };
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule([run] { run(); });
  run();
  std::unique_lock<std::mutex> lock(progress->mutex);
  progress->finished.wait(lock, [&] { return progress->done.load() == count; });
}

}  // namespace deepprism

#endif  // DEEPPRISM_VECTOR_H_
