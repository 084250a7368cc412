// Prefixes and scores of a beam's hypotheses: how token sequences are hashed, and how scores are merged.
//
// Header-only and without dependencies: compiled by host compilers and by NVRTC alike.
#pragma once

#if !defined(__CUDACC_RTC__)
#include <math.h>
#endif

#include "row.h"

namespace tdt {

constexpr unsigned long long kEmptyPrefix = 0x243f6a8885a308d3ull;

// The hash of a prefix with one more token (the finaliser of splitmix64). Different prefixes almost never have the same
// hash, but they can: where two hashes are equal, the tokens must be compared.
TDT_HD unsigned long long extended(unsigned long long prefix, int token) {
  unsigned long long x = prefix + 0x9e3779b97f4a7c15ull * (static_cast<unsigned long long>(token) + 1);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

// Whether two sequences of equal length have the same tokens. A sequence is a chain of records with last record `a` or
// `b` (-1: no records), followed by `token_a` or `token_b` (-1: no such token). A record has a `token` and the index of
// the `previous` record, -1 for the first.
template <class Record>
TDT_HD bool same_tokens(const Record* records, int a, int token_a, int b, int token_b) {
  for (;;) {
    if (token_a < 0 && token_b < 0 && a == b) return true;
    if (token_a < 0) {
      if (a < 0) return false;
      token_a = records[a].token;
      a = records[a].previous;
    }
    if (token_b < 0) {
      if (b < 0) return false;
      token_b = records[b].token;
      b = records[b].previous;
    }
    if (token_a != token_b) return false;
    token_a = token_b = -1;
  }
}

// log(e^a + e^b), where kLowest stands for log 0.
TDT_HD double log_add(double a, double b) {
  const double larger = a > b ? a : b, smaller = a > b ? b : a;
  if (!(larger > static_cast<double>(kLowest))) return larger;
  return larger + log1p(exp(smaller - larger));
}

}  // namespace tdt
