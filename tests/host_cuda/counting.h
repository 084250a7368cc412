// Counts what each block of an emulated launch does. Compiled with -Wp,-fsanitize=thread, so that each access to memory
// calls a function here, in place of ThreadSanitizer's own.
//
// A block's counts are kept apart by what it does with the other blocks: it arrives at a barrier over the grid or leaves
// numbers for the others, it works on, and it waits for theirs. All of its threads say so (`arriving`, `meanwhile`,
// `awaiting`), so that each thread's events belong to the part that they happen in.
#pragma once

#include <cstdint>
#include <cstring>
#include <deque>
#include <unordered_map>
#include <vector>

namespace tdt::host {

// Bytes and numbers of events, of a whole block but for the longest. Those are the most of a thread or warp: they wait
// for each other.
struct Counts {
  long long global_read;        // what the multiprocessor's own cache does not have, in whole sectors
  long long global_written;
  // Times that shared memory is at work for a warp. It gives each of its 32 banks' words once, so this is the most
  // different words that a warp's instruction wants of a bank: 1 if all lanes want the same word, 4 if each wants 16
  // bytes of its own.
  long long shared_read, shared_written;
  long long shared_stored;      // bytes
  long long converted;          // numbers that were made 16 bits, two at a time
  long long barriers;           // of the block
  long long shuffles;           // of a warp, all together
  long long products;           // of a tile's step with eight columns, by a warp
  long long polls;              // of words that had not changed
  long long longest_products;   // most products of one warp
  long long longest_shuffles;   // most shuffles of one warp
  // Most of one thread: loads of global memory that follow something else. Near ones find all that they read in the
  // multiprocessor's own cache.
  long long longest_near, longest_far;
  long long end;                // an `End`
};
enum class End : long long { arrival, meanwhile, wait };

// An access to shared memory, and the instruction that it belongs to.
struct Access {
  const void *place, *address;
  int bytes, interval;
  bool written;
};

struct Tally {
  struct Thread {
    long long products = 0, shuffles = 0, near = 0, far = 0;
    long long awaited = 0;  // bytes of the words that it read last, if it waits for them
    bool fetching = false, is_far = false;
    long long barriers = 0;  // of the block, that it has come to since the beginning
    int interval = 0;
    std::vector<Access> accesses;  // since the threads of its warp last met
  };
  struct Block {
    std::vector<Counts> intervals{1};
    std::vector<Thread> threads;
    // What its own cache holds: for each sector of 32 bytes the number of barriers of the block before it was read; and
    // the sectors in the order in which they were.
    std::unordered_map<std::uintptr_t, long long> cached;
    std::deque<std::uintptr_t> order;
  };
  std::vector<Block> blocks;
  bool counts = false;
  int unseen = 0;
};

inline Tally the_tally;

enum class Event { barrier, shuffle, product, arrival, meanwhile, wait, acquired, poll, conversion };
void tally(Event event);
void met(bool block);  // all threads of a warp or of the block have come to a barrier, the running one as the last
void fetched(const void* address);  // to the multiprocessor's own cache, ahead of time

}  // namespace tdt::host

#define TDT_MET(block) tdt::host::met(block)
#define TDT_COUNT(event) tdt::host::tally(tdt::host::Event::event)
