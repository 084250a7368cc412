// The functions of csrc/cuda/device.cuh for the host, and a machine that runs kernels with them.
//
// Every CUDA thread is a fiber, and all fibers share one thread of the host. So a run can be repeated exactly, and a
// barrier costs microseconds. A random generator with a seed picks the fiber that runs next, so that other seeds try
// other interleavings. ThreadSanitizer sees each fiber as a thread of its own, and only the atomics and barriers here
// order one after another. AddressSanitizer knows each fiber's stack.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <vector>

#include <cmath>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#define UNSEEN __attribute__((no_sanitize_thread))
#else
#define UNSEEN
#endif
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

// What a launch does can be counted.
#if defined(TDT_COUNTING)
#include "counting.h"
#else
#define TDT_COUNT(event)
#define TDT_MET(block)
#endif

#define __global__
#define __device__
#define __forceinline__ inline
#define TDT_OUTLINED inline
#define __launch_bounds__(...)
#define __grid_constant__

struct uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct HostIndex {
  unsigned x;
};

namespace tdt::host {

constexpr int kLanes = 32;
constexpr std::size_t kStack = 1 << 16;

// While it exists, ThreadSanitizer ignores reads and writes. It is for the machine's own data, which one fiber at a
// time reads and writes.
struct Unseen {
#if defined(__SANITIZE_THREAD__)
  Unseen() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unseen() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
#else
  Unseen() {}
#endif
};

class Barrier {
 public:
  explicit Barrier(int count) : count_(count) {}
  void wait();

 private:
  int count_, arrived_ = 0;
  unsigned generation_ = 0;
  std::vector<struct Fiber*> waiting_;
};

struct Warp {
  Barrier barrier{kLanes};
  unsigned long long words[kLanes];
  unsigned fragments[6][kLanes];
};

struct Block {
  Block(unsigned index, int threads, std::size_t shared)
      : index(index), barrier(threads), warps(threads / kLanes), memory((shared + 31) / 16) {
    // On a card, shared memory may hold anything when a block begins. Here it holds NaN.
    std::memset(memory.data(), 0xff, memory.size() * 16);
  }
  unsigned index;
  Barrier barrier;
  std::vector<Warp> warps;
  struct alignas(16) Word {
    unsigned char bytes[16];
  };
  std::vector<Word> memory;
};

// Where a suspended computation goes on.
#if defined(__x86_64__)
// The registers that a function must preserve are saved on the stack; the rest of a context is the stack's address. The
// C library's swapcontext would make two system calls for each switch.
extern "C" void tdt_host_switch(void** from, void* to);
__asm__(
    ".text\n.hidden tdt_host_switch\n.globl tdt_host_switch\n.type tdt_host_switch, @function\n"
    "tdt_host_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n  ret\n");

struct Context {
  void* stack = nullptr;

  void begin(char* memory, void (*body)()) {
    auto** top = reinterpret_cast<void**>((reinterpret_cast<std::uintptr_t>(memory) + kStack) & ~std::uintptr_t{15});
    *--top = nullptr;  // the return address of the body, which never returns
    *--top = reinterpret_cast<void*>(body);
    stack = top - 6;
    std::memset(stack, 0, 6 * sizeof(void*));
  }
  UNSEEN void leave_for(Context& other) { tdt_host_switch(&stack, other.stack); }
};
#else
struct Context {
  ucontext_t context;

  void begin(char* memory, void (*body)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = memory;
    context.uc_stack.ss_size = kStack;
    context.uc_link = nullptr;
    makecontext(&context, body, 0);
  }
  UNSEEN void leave_for(Context& other) { swapcontext(&context, &other.context); }
};
#endif

struct Fiber {
  Context context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  Block* block = nullptr;
  unsigned thread = 0;
#if defined(__SANITIZE_THREAD__)
  void* twin = __tsan_create_fiber(0);
#endif
};

// A launch in progress.
struct Machine {
  unsigned blocks = 0, threads = 0;
  std::function<void()> kernel;
  std::vector<std::unique_ptr<Fiber>> pool;
  std::vector<Fiber*> ready;
  Fiber* current = nullptr;
  int alive = 0;
  unsigned begun = 0, ended = 0;  // atomics that order the host before its fibers, and the fibers before the host
  Context host;
#if defined(__SANITIZE_THREAD__)
  void* host_twin = nullptr;
#endif
  std::mt19937 random{seed()};

  static unsigned seed() {
    const char* text = std::getenv("TDT_EMULATION_SEED");
    return text ? static_cast<unsigned>(std::atoi(text)) : 0;
  }

  UNSEEN static Machine& get() { return *the; }
  static Machine* the;

  UNSEEN void to(Fiber* fiber) {
    current = fiber;
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(fiber->twin, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber->stack.get(), kStack);
    host.leave_for(fiber->context);
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#else
    host.leave_for(fiber->context);
#endif
    current = nullptr;
  }

  // Suspends the running fiber. It is in `ready`, or another fiber will put it there.
  UNSEEN void away(bool for_ever = false) {
    Fiber* self = current;
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(host_twin, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(for_ever ? nullptr : &fake, host_stack, host_size);
    self->context.leave_for(host);
    __sanitizer_finish_switch_fiber(fake, &host_stack, &host_size);
#else
    static_cast<void>(for_ever);
    self->context.leave_for(host);
#endif
  }
#if defined(__SANITIZE_ADDRESS__)
  const void* host_stack = nullptr;
  std::size_t host_size = 0;
#endif

  static void body() {
    Machine& machine = get();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &machine.host_stack, &machine.host_size);
#endif
    __atomic_load_n(&machine.begun, __ATOMIC_ACQUIRE);
    machine.kernel();
    __atomic_fetch_add(&machine.ended, 1, __ATOMIC_RELEASE);
    {
      Unseen unseen;
      --machine.alive;
    }
    machine.away(true);
  }

  void run(std::vector<std::unique_ptr<Block>>& some) {
    const std::size_t count = some.size() * threads;
    while (pool.size() < count) pool.push_back(std::make_unique<Fiber>());
#if defined(__SANITIZE_THREAD__)
    host_twin = __tsan_get_current_fiber();
#endif
    alive = static_cast<int>(count);
    ready.clear();
    for (std::size_t i = 0; i < count; ++i) {
      Fiber* fiber = pool[i].get();
      fiber->block = some[i / threads].get();
      fiber->thread = static_cast<unsigned>(i % threads);
      fiber->context.begin(fiber->stack.get(), body);
      ready.push_back(fiber);
    }
    __atomic_store_n(&begun, 1, __ATOMIC_RELEASE);
    while (alive) {
      if (ready.empty()) {
        std::fprintf(stderr, "some threads wait at a barrier that the others never reach\n");
        std::abort();
      }
      const std::size_t at = random() % ready.size();
      Fiber* next = ready[at];
      ready[at] = ready.back();
      ready.pop_back();
      to(next);
    }
    __atomic_load_n(&ended, __ATOMIC_ACQUIRE);
  }

  // The blocks of a cooperative launch run together. Those of other launches run one after the other, since they must
  // not wait for each other.
  void launch(unsigned grid, unsigned block, std::size_t shared, bool cooperative, std::function<void()> body) {
    if (block == 0 || block % kLanes) {
      std::fprintf(stderr, "blocks must be whole warps, got %u threads\n", block);
      std::abort();
    }
    blocks = grid;
    threads = block;
    kernel = std::move(body);
    std::vector<std::unique_ptr<Block>> some;
    for (unsigned i = 0; i < grid; ++i) {
      some.push_back(std::make_unique<Block>(i, static_cast<int>(block), shared));
      if (cooperative && i + 1 < grid) continue;
      run(some);
      some.clear();
    }
  }
};

inline Machine* Machine::the = new Machine;

UNSEEN inline Fiber& self() { return *Machine::get().current; }

inline void Barrier::wait() {
  // Orders what was written before the barrier before what is read after it.
  __atomic_fetch_add(&generation_, 1, __ATOMIC_ACQ_REL);
  bool last;
  {
    Unseen unseen;
    Machine& machine = Machine::get();
    last = ++arrived_ == count_;
    if (last) {
      TDT_MET(count_ != kLanes);
      arrived_ = 0;
      for (Fiber* fiber : waiting_) machine.ready.push_back(fiber);
      waiting_.clear();
    } else {
      waiting_.push_back(machine.current);
    }
  }
  if (!last) Machine::get().away();
  __atomic_load_n(&generation_, __ATOMIC_ACQUIRE);
}

UNSEEN inline Warp& warp() { return self().block->warps[self().thread / kLanes]; }

template <class T>
T exchanged(T value, int lane) {
  static_assert(sizeof(T) <= 8);
  Warp& mine = warp();
  std::memcpy(&mine.words[self().thread % kLanes], &value, sizeof value);
  mine.barrier.wait();
  T other;
  std::memcpy(&other, &mine.words[lane], sizeof other);
  mine.barrier.wait();
  return other;
}

// Calls a kernel with arguments as CUDA takes them: an address for each.
template <class... Arguments, std::size_t... I>
void call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::decay_t<Arguments>*>(arguments[I])...);
}
template <class... Arguments>
void launch(void (*kernel)(Arguments...), unsigned grid, unsigned block, std::size_t shared, int cooperative,
            void** arguments) {
  Machine::get().launch(grid, block, shared, cooperative != 0, [=] {
    call(kernel, arguments, std::index_sequence_for<Arguments...>{});
  });
}

}  // namespace tdt::host

#define threadIdx (HostIndex{tdt::host::self().thread})
#define blockIdx (HostIndex{tdt::host::self().block->index})
#define blockDim (HostIndex{tdt::host::Machine::get().threads})
#define gridDim (HostIndex{tdt::host::Machine::get().blocks})

namespace tdt::cuda {

inline unsigned char* shared_memory() { return reinterpret_cast<unsigned char*>(host::self().block->memory.data()); }
inline void sync_block() {
  TDT_COUNT(barrier);
  host::self().block->barrier.wait();
}
inline void sync_warp() { host::warp().barrier.wait(); }
template <class T>
T shuffle_xor(T value, int mask) {
  TDT_COUNT(shuffle);
  return host::exchanged(value, static_cast<int>(host::self().thread % host::kLanes) ^ mask);
}
template <class T>
T shuffle(T value, int lane) {
  TDT_COUNT(shuffle);
  return host::exchanged(value, lane);
}
inline unsigned ballot(bool predicate) {
  host::Warp& mine = host::warp();
  mine.words[host::self().thread % host::kLanes] = predicate;
  mine.barrier.wait();
  unsigned bits = 0;
  for (int lane = 0; lane < host::kLanes; ++lane) bits |= static_cast<unsigned>(mine.words[lane]) << lane;
  mine.barrier.wait();
  return bits;
}
inline int count_bits(unsigned bits) { return __builtin_popcount(bits); }

inline unsigned load_acquire(const unsigned* word) {
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
inline unsigned long long load_acquire(const unsigned long long* word) {
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}
inline void store_release(unsigned* word, unsigned value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
inline void store_release(unsigned long long* word, unsigned long long value) {
  __atomic_store_n(word, value, __ATOMIC_RELEASE);
}
inline void add_release(unsigned* word, unsigned value) {
  __atomic_fetch_add(word, value, __ATOMIC_RELEASE);
}
inline void load_relaxed(const unsigned long long* two, unsigned long long* a, unsigned long long* b) {
  *a = __atomic_load_n(two, __ATOMIC_RELAXED);
  *b = __atomic_load_n(two + 1, __ATOMIC_RELAXED);
}
inline void store_relaxed(unsigned long long* word, unsigned long long value) {
  __atomic_store_n(word, value, __ATOMIC_RELAXED);
}
inline void pause() {
  TDT_COUNT(poll);
  host::Machine& machine = host::Machine::get();
  {
    host::Unseen unseen;
    machine.ready.push_back(machine.current);
  }
  machine.away();
}
inline void arriving() { TDT_COUNT(arrival); }
inline void meanwhile() { TDT_COUNT(meanwhile); }
inline void awaiting() { TDT_COUNT(wait); }
inline void acquired() { TDT_COUNT(acquired); }
[[noreturn]] inline void fail() {
  std::fprintf(stderr, "a kernel has failed\n");
  std::abort();
}
template <class T>
void copy_whole(T* to, const T* from) {
  static_assert(sizeof(T) == 16 && alignof(T) == 16);
  std::memcpy(static_cast<void*>(to), from, sizeof(T));
}
inline void prefetch(const void* word) {
#if defined(TDT_COUNTING)
  host::fetched(word);
#else
  static_cast<void>(word);
#endif
}
inline void atomic_max(unsigned long long* word, unsigned long long value) {
  unsigned long long old = 0;  // not read first, since on a card nobody waits for this word
  while (old < value && !__atomic_compare_exchange_n(word, &old, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}
inline int atomic_add(int* word, int value) { return __atomic_fetch_add(word, value, __ATOMIC_RELAXED); }

inline unsigned bits_of(float x) {
  unsigned bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline float float_of(unsigned bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

inline float half_value(unsigned short bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  float x = exponent == 31  ? (fraction ? NAN : INFINITY)
            : exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                            : std::ldexp(static_cast<float>(fraction + 1024), exponent - 25);
  return bits >> 15 ? -x : x;
}
// Rounds to the nearest, ties to even.
inline unsigned short half_bits(float x) {
  const unsigned short sign = static_cast<unsigned short>(bits_of(x) >> 16 & 0x8000u);
  const float size = std::fabs(x);
  if (std::isnan(x)) return 0x7fff;
  if (size >= 65520.0f) return sign | 0x7c00;
  if (size < std::ldexp(1.0f, -14)) return sign | static_cast<unsigned short>(std::nearbyint(std::ldexp(size, 24)));
  int exponent;
  const float fraction = std::frexp(size, &exponent);  // [0.5, 1)
  const auto mantissa = static_cast<unsigned>(std::nearbyint(std::ldexp(fraction, 11)));  // 1024 .. 2048
  return static_cast<unsigned short>(sign | (((exponent + 14) << 10) + (mantissa - 1024)));
}
inline unsigned finite_halves(float low, float high) {
  TDT_COUNT(conversion);
  const auto finite = [](float x) { return half_bits(x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x); };
  return finite(low) | static_cast<unsigned>(finite(high)) << 16;
}
inline unsigned positive_halves(float low, float high) {
  return finite_halves(low < 0.0f ? 0.0f : low, high < 0.0f ? 0.0f : high);
}
inline float bfloat_value(unsigned short bits) { return float_of(static_cast<unsigned>(bits) << 16); }

// The values of all 16-bit numbers, which a product looks up. Made when the library is loaded, before any launch.
template <float (*Value)(unsigned short)>
struct SixteenBitValues {
  static const std::vector<float> all;
  static std::vector<float> made() {
    std::vector<float> values;
    for (unsigned bits = 0; bits < 1u << 16; ++bits) values.push_back(Value(static_cast<unsigned short>(bits)));
    return values;
  }
};
template <float (*Value)(unsigned short)>
const std::vector<float> SixteenBitValues<Value>::all = made();

// Each lane computes its four sums from the fragments of all lanes.
template <float (*Value)(unsigned short)>
UNSEEN void multiply_fragments(float (&sums)[4], const uint4& a, unsigned b0, unsigned b1) {
  TDT_COUNT(product);
  const float* values = SixteenBitValues<Value>::all.data();
  host::Warp& mine = host::warp();
  const unsigned lane = host::self().thread % host::kLanes;
  const unsigned own[6] = {a.x, a.y, a.z, a.w, b0, b1};
  for (int i = 0; i < 6; ++i) mine.fragments[i][lane] = own[i];
  mine.barrier.wait();
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned x = mine.fragments[k / 8 * 2 + row / 8][row % 8 * 4 + k % 8 / 2] >> (16 * (k & 1));
      const unsigned y = mine.fragments[4 + k / 8][column * 4 + k % 8 / 2] >> (16 * (k & 1));
      sums[i] += values[x & 0xffff] * values[y & 0xffff];
    }
  }
  mine.barrier.wait();
}
inline void multiply_halves(float (&sums)[4], const uint4& a, unsigned b0, unsigned b1) {
  multiply_fragments<half_value>(sums, a, b0, b1);
}
inline void multiply_bfloats(float (&sums)[4], const uint4& a, unsigned b0, unsigned b1) {
  multiply_fragments<bfloat_value>(sums, a, b0, b1);
}

}  // namespace tdt::cuda

#if defined(TDT_COUNTING)
#include "counting_events.h"
#endif
