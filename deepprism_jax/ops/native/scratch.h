// Arrays that a kernel works in.

#ifndef DEEPPRISM_SCRATCH_H_
#define DEEPPRISM_SCRATCH_H_

#include <cstddef>
#include <new>
#include <vector>

namespace deepprism {

// Blocks of memory that begin with a cache line, by the power of two that holds them. A
// thread keeps them for its next call: a heap that a compiler has left in pieces has
// long lists of free blocks, and malloc walks them for each.
class Shelves {
 public:
  static void* Take(size_t bytes) {
    std::vector<void*>& shelf = Mine()[Size(bytes)];
    if (shelf.empty())
      return ::operator new(size_t{1} << Size(bytes), std::align_val_t{kLine});
    void* block = shelf.back();
    shelf.pop_back();
    return block;
  }

  static void Put(void* block, size_t bytes) { Mine()[Size(bytes)].push_back(block); }

 private:
  static constexpr size_t kLine = 64;

  struct All {
    std::vector<void*> of[64];
    ~All() {
      for (std::vector<void*>& shelf : of)
        for (void* block : shelf) ::operator delete(block, std::align_val_t{kLine});
    }
  };

  static std::vector<void*>* Mine() {
    thread_local All all;
    return all.of;
  }

  static int Size(size_t bytes) { return 64 - __builtin_clzll((bytes - 1) | (kLine - 1)); }
};

template <typename T>
struct Kept {
  using value_type = T;

  Kept() = default;
  template <typename U>
  Kept(const Kept<U>&) {}

  T* allocate(size_t count) {
    return static_cast<T*>(Shelves::Take(count * sizeof(T)));
  }
  void deallocate(T* block, size_t count) { Shelves::Put(block, count * sizeof(T)); }

  template <typename U>
  bool operator==(const Kept<U>&) const { return true; }
  template <typename U>
  bool operator!=(const Kept<U>&) const { return false; }
};

// Made and given back by one and the same thread, or one would run out of what another
// piles up.
template <typename T>
using Scratch = std::vector<T, Kept<T>>;

}  // namespace deepprism

#endif  // DEEPPRISM_SCRATCH_H_
