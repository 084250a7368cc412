// Counts what each block of an emulated launch does. Compiled with -Wp,-fsanitize=thread, so that each access to memory
// calls a function here, in place of ThreadSanitizer's own.
//
// A block's counts are kept apart by what it does with the other blocks: it arrives at a barrier over the grid or leaves
// numbers for the others, it works on, and it waits for theirs.
#pragma once

#include <cstdint>
#include <cstring>
#include <unordered_map>
#include <vector>

namespace tdt::host {

// Bytes and numbers of events, of a whole block but for the longest. Those are the most of a thread or warp: they wait for each
// other.
struct Counts {
  long long global_read, global_written, shared_read, shared_written;
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

struct Tally {
  struct Thread {
    long long products = 0, shuffles = 0, near = 0, far = 0;
    long long awaited = 0;  // bytes of the words that it read last, if it waits for them
    bool fetching = false, is_far = false;
    long long barriers = 0;  // of the block, that it has come to since the beginning
  };
  struct Block {
    std::vector<Counts> intervals{1};
    std::vector<Thread> threads;
    bool shared = false;  // whether it has left something since it last waited
    // What its own cache holds: for each sector of 32 bytes the number of barriers of the block before it was read.
    std::unordered_map<std::uintptr_t, long long> cached;
    long long met = -1;  // how many barriers of the block its threads had come to when they last called `meanwhile`
  };
  std::vector<Block> blocks;
  bool counts = false;
  int unseen = 0;
};

inline Tally the_tally;

enum class Event { barrier, shuffle, product, arrival, meanwhile, wait, poll, conversion };
void tally(Event event);
void fetched(const void* address);  // to the multiprocessor's own cache, ahead of time

}  // namespace tdt::host

#define TDT_COUNT(event) tdt::host::tally(tdt::host::Event::event)
