// A search's options, as every kernel takes them: one structure from the caller to the rule that reads the option.
//
// `tdtdecode/options.py` fills these structures. It declares the same fields in the same order.
// Header-only and without dependencies: compiled by host compilers and by NVRTC alike.
#pragma once

namespace tdt {

struct GreedyOptions {
  int max_symbols;      // most tokens emitted at one frame by durations of 0
  float blank_penalty;  // subtracted from the blank logit for the choice, not for what is reported
  int trace;            // 1: blanks are logged like tokens, with their log-probabilities
};

enum class Strategy : int {
  greedy = 0,  // one hypothesis: fusion chooses among tokens, after the row has chosen between blank and token
  tsd = 1,     // time-synchronous: frame by frame, merged before it is pruned
  malsd = 2,   // NeMo's: one symbol a step
};

enum class BlankMode : int { no_score = 0, lm_weighted_full = 1 };  // of malsd

// A sum over a row's token entries, p = softmax of them, from which confidence measures are computed.
enum class Statistic : int {
  none = 0,
  max_prob = 1,       // the largest p
  power_sum = 2,      // sum of p^alpha
  power_log_sum = 3,  // sum of p^alpha ln p
  shannon = 4,        // sum of p ln p
};

struct BeamOptions {
  GreedyOptions greedy;  // what both kinds of search have
  Strategy strategy;
  int size;
  float temperature;     // of tsd
  BlankMode blank_mode;  // of malsd
  int prune_early;       // of malsd
  Statistic statistic;
  float alpha;           // of the statistic
  float weight_sum;      // of all fusions
  double threshold;      // of tsd; infinite: none
};

}  // namespace tdt
