// Global memory as the interpreter checks it: which bytes are whose, which somebody has written (initcheck), and which blocks of
// the launch that runs have touched them (racecheck between blocks).
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ptx {

// What a run is stopped by.
struct Fault {
  std::string why;
};

__attribute__((format(printf, 1, 2))) inline std::string text(const char* format, ...) {
  char out[512];
  va_list args;
  va_start(args, format);
  vsnprintf(out, sizeof out, format, args);
  va_end(args);
  return out;
}

struct Release {
  void operator()(void* p) const { free(p); }
};

// A mark for each granule of a buffer says what a launch did with it, in 64 bits: who read, who wrote (0 for nobody, MANY, or the
// block + 1), whether by ld.global.nc, whether all writes were atomic, and which launch.
namespace mark {
constexpr uint64_t MANY = 0xfffff, NC = 1ull << 40, ATOMIC = 1ull << 41;
constexpr int WRITER = 20, LAUNCH = 42;
inline uint64_t reader(uint64_t m) { return m & MANY; }
inline uint64_t writer(uint64_t m) { return m >> WRITER & MANY; }
}  // namespace mark

struct Buffer {
  uint64_t start = 0, size = 0;
  std::vector<uint64_t> known;  // a bit for each byte that was written; empty if all were
  std::unique_ptr<uint64_t[], Release> marks;
  int shift = 2;  // granules of 1 << shift bytes

  Buffer(uint64_t start, uint64_t size, bool written) : start(start), size(size) {
    if (!written) known.assign(size / 64 + 1, 0);
  }
  bool holds(uint64_t p, uint64_t n) const { return p >= start && n <= size && p - start <= size - n; }

  bool written(uint64_t at, unsigned n) const {
    if (known.empty()) return true;
    const uint64_t bits = (n >= 64 ? ~0ull : (1ull << n) - 1);  // aligned, so within one word
    return (known[at / 64] >> at % 64 & bits) == bits;
  }
  void write(uint64_t at, unsigned n) {
    if (!known.empty()) known[at / 64] |= ((1ull << n) - 1) << at % 64;
  }
  // Any range.
  void write_all(uint64_t at, uint64_t n) {
    if (known.empty()) return;
    if (at == 0 && n == size) return known.clear();
    for (; n && at % 64; at++, n--) write(at, 1);
    for (; n >= 64; at += 64, n -= 64) known[at / 64] = ~0ull;
    for (; n; at++, n--) write(at, 1);
  }
  void copy(uint64_t at, const Buffer& from, uint64_t other, uint64_t n) {
    if (from.known.empty()) return write_all(at, n);
    if (known.empty()) {
      known.assign(size / 64 + 1, ~0ull);
    }
    for (uint64_t i = 0; i < n; i++) {
      const uint64_t to = at + i;
      known[to / 64] = (known[to / 64] & ~(1ull << to % 64)) | (uint64_t)from.written(other + i, 1) << to % 64;
    }
  }

  // The marks in granules no larger than `bytes`.
  uint64_t* granules(unsigned bytes) {
    const int wanted = bytes >= 4 ? 2 : bytes == 2 ? 1 : 0;
    if (!marks) {
      shift = wanted;
      marks.reset((uint64_t*)calloc((size >> shift) + 1, 8));
    } else if (wanted < shift) {
      std::unique_ptr<uint64_t[], Release> finer((uint64_t*)calloc((size >> wanted) + 1, 8));
      for (uint64_t i = 0; i <= size >> wanted; i++) finer[i] = marks[i >> (shift - wanted)];
      marks = std::move(finer);
      shift = wanted;
    }
    return marks.get();
  }
};

class Memory {
 public:
  Buffer* add(uint64_t start, uint64_t size, bool written) {
    return &buffers_.emplace(start, Buffer(start, size, written)).first->second;
  }
  void remove(uint64_t start) {
    buffers_.erase(start);
    removed_++;
  }
  // Changes when a pointer to a buffer may have become invalid.
  uint64_t removed() const { return removed_; }
  Buffer* find(uint64_t p, uint64_t n) {
    auto next = buffers_.upper_bound(p);
    if (next == buffers_.begin()) return nullptr;
    Buffer& b = (--next)->second;
    return b.holds(p, n) ? &b : nullptr;
  }
  // What to say of an address that is in no buffer.
  std::string place(uint64_t p, uint64_t n) {
    auto next = buffers_.upper_bound(p);
    if (next == buffers_.begin()) return text("%#llx is in no buffer", (unsigned long long)p);
    const Buffer& b = (--next)->second;
    return text("%llu bytes at %lld of a buffer of %llu", (unsigned long long)n, (long long)(p - b.start),
                (unsigned long long)b.size);
  }

 private:
  std::map<uint64_t, Buffer> buffers_;
  uint64_t removed_ = 0;
};

}  // namespace ptx
