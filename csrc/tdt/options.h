// A search's options in the form that every kernel takes. The same structure goes from the caller down to the rule that
// reads an option.
//
// `tdtdecode/options.py` fills these structures. It declares the same fields in the same order.
// Header-only and without dependencies: compiled by host compilers and by NVRTC alike.
#pragma once

namespace tdt {

struct GreedyOptions {
  int max_symbols;      // most tokens emitted at one frame; if the last of them has duration 0, the search moves on
                        // by one frame
  float blank_penalty;  // subtracted from the blank logit for the choice; reported log-probabilities ignore it
  int trace;            // 1: blanks are logged like tokens, with their log-probabilities
};

enum class Strategy : int {
  greedy = 0,  // one hypothesis; the row alone decides between blank and token, fusion takes part in choosing the token
  tsd = 1,     // time-synchronous: frame by frame; hypotheses are merged, then pruned
  malsd = 2,   // NeMo's: all hypotheses take one step at a time, whatever frames they have reached
};

enum class BlankMode : int { no_score = 0, lm_weighted_full = 1 };  // of malsd

// The sum over a row's token entries that a confidence measure is computed from; p is their softmax.
enum class Statistic : int {
  none = 0,
  max_prob = 1,       // the largest p
  power_sum = 2,      // sum of p^alpha
  power_log_sum = 3,  // sum of p^alpha ln p
  shannon = 4,        // sum of p ln p
};

struct BeamOptions {
  GreedyOptions greedy;  // the options that greedy search has too
  Strategy strategy;
  int size;
  float temperature;     // of tsd
  BlankMode blank_mode;  // of malsd
  int prune_early;       // of malsd
  Statistic statistic;
  float alpha;           // of the statistic
  float weight_sum;      // of all fusions
  double threshold;      // of tsd, in nats; infinity: no threshold
};

}  // namespace tdt
