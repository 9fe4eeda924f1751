// Global memory as the interpreter checks it: which bytes are whose, which somebody has written (initcheck), and which blocks of
// the launch that runs have touched them (racecheck between blocks).
#pragma once
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
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
    return text("%llu bytes at %lld of a buffer of %llu", (unsigned long long)n, (long long)(p - b.start), (unsigned long long)b.size);
  }

 private:
  std::map<uint64_t, Buffer> buffers_;
  uint64_t removed_ = 0;
};

// What one block does to global memory in a launch; `strict` with blocks that are not synchronised by the kernel itself.
struct Toucher {
  uint64_t launch = 0, me = 0;  // shifted; block + 1
  bool strict = true;
  uint64_t reads_mine, reads_many, reads_nc, many_nc, all_mine, writes_mine;

  void set(uint64_t number, uint64_t block) {
    launch = number << mark::LAUNCH;
    me = block + 1;
    reads_mine = launch | me;
    reads_many = launch | mark::MANY;
    reads_nc = reads_mine | mark::NC;
    many_nc = reads_many | mark::NC;
    writes_mine = launch | me << mark::WRITER;
    all_mine = writes_mine | me;
  }

  // Atomic here: by atom, red or volatile, which may meet each other.
  void read(uint64_t& m, bool nc, bool atomic) const {
    if (m == reads_nc || m == many_nc || (!nc && (m == reads_mine || m == reads_many || m == all_mine))) return;
    if (m >> mark::LAUNCH != launch >> mark::LAUNCH) m = launch;
    const uint64_t writer = mark::writer(m);
    if (nc && writer) throw Fault{"ld.global.nc of memory that this launch writes"};
    if (strict && writer && writer != me && !(atomic && m & mark::ATOMIC))
      throw Fault{writer == mark::MANY ? "a read of what other blocks write" : text("a read of what block %llu writes", (unsigned long long)writer - 1)};
    if (atomic) return;
    m |= nc ? mark::NC : 0;
    const uint64_t reader = mark::reader(m);
    m = (m & ~mark::MANY) | (reader == 0 || reader == me ? me : mark::MANY);
  }
  void write(uint64_t& m, bool atomic) const {
    if (!atomic && (m == writes_mine || m == all_mine)) return;
    if (m >> mark::LAUNCH != launch >> mark::LAUNCH) m = launch;
    const uint64_t writer = mark::writer(m), reader = mark::reader(m);
    if (m & mark::NC) throw Fault{"a write to memory that this launch reads by ld.global.nc"};
    if (strict && reader && reader != me)
      throw Fault{reader == mark::MANY ? "a write to what other blocks read" : text("a write to what block %llu reads", (unsigned long long)reader - 1)};
    if (strict && writer && writer != me && !(atomic && m & mark::ATOMIC))
      throw Fault{writer == mark::MANY ? "a write to what other blocks write" : text("a write to what block %llu writes", (unsigned long long)writer - 1)};
    if (atomic && (writer == 0 || m & mark::ATOMIC)) m |= mark::ATOMIC;
    else m &= ~mark::ATOMIC;
    m = (m & ~(mark::MANY << mark::WRITER)) | (writer == 0 || writer == me ? me : mark::MANY) << mark::WRITER;
  }
};

}  // namespace ptx
