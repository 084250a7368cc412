#include "text/phrases.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <utility>

namespace tdt::text {

AutomatonTables phrase_automaton(const std::vector<Phrase>& phrases, double context_score, double depth_scaling,
                                 const Speller* same) {
  struct Node {
    std::map<std::int32_t, std::int32_t> children;
    double arc_score = 0.0, score = 0.0, open_score = 0.0;  // open: the scores since the last complete phrase
    bool complete = false;
    std::int32_t parent = 0, token = 0, fail = 0, depth = 0;
  };
  std::vector<Node> nodes(1);
  for (const Phrase& phrase : phrases) {
    for (const Spelling& spelling : phrase.spellings) {
      std::int32_t at = 0;
      int place = spelling[0] == kBegin ? -1 : 0;
      for (std::int32_t token : spelling) {
        const auto found = nodes[at].children.find(token);
        std::int32_t after;
        if (found != nodes[at].children.end()) {
          after = found->second;
        } else {
          after = static_cast<std::int32_t>(nodes.size());
          nodes[at].children.emplace(token, after);
          nodes.emplace_back();
          nodes[after].parent = at;
          nodes[after].token = token;
          nodes[after].depth = nodes[at].depth + 1;
        }
        double step = 0.0;
        if (place == 0) step = context_score;
        if (place > 0) step = context_score * depth_scaling + std::log(place + 1.0);
        nodes[after].arc_score = std::max(nodes[after].arc_score, phrase.weight * step);
        at = after;
        ++place;
      }
      nodes[at].complete = true;
    }
  }

  std::vector<std::int32_t> order(nodes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::int32_t a, std::int32_t b) { return nodes[a].depth < nodes[b].depth; });
  const auto child = [&](std::int32_t at, std::int32_t token) {
    const auto found = nodes[at].children.find(token);
    return found == nodes[at].children.end() ? 0 : found->second;
  };
  for (std::int32_t index : order) {
    if (index == 0) continue;
    Node& node = nodes[index];
    const Node& above = nodes[node.parent];
    node.score = above.score + node.arc_score;
    node.open_score = node.complete ? 0.0 : above.open_score + node.arc_score;
    std::int32_t at = above.fail;
    while (node.parent && !nodes[at].children.count(node.token) && at) at = nodes[at].fail;
    node.fail = node.parent ? child(at, node.token) : 0;
  }

  AutomatonTables tables;
  tables.start = child(0, kBegin);
  nodes[0].children.erase(kBegin);
  tables.first_arc.push_back(0);
  for (const Node& node : nodes) {
    std::vector<std::pair<std::int32_t, std::int32_t>> arcs;
    for (const auto& [token, after] : node.children) {
      if (same) {
        for (std::int32_t other : same->same(token)) arcs.emplace_back(other, after);
      } else {
        arcs.emplace_back(token, after);
      }
    }
    std::sort(arcs.begin(), arcs.end());
    for (const auto& [token, after] : arcs) {
      tables.arc_token.push_back(token);
      tables.arc_target.push_back(after);
      tables.arc_weight.push_back(static_cast<float>(nodes[after].arc_score));
    }
    tables.first_arc.push_back(static_cast<std::int64_t>(tables.arc_token.size()));
    tables.backoff_state.push_back(node.fail);
    tables.backoff_weight.push_back(node.complete ? 0.0f : static_cast<float>(nodes[node.fail].score - node.score));
    tables.final_weight.push_back(-static_cast<float>(node.open_score));
  }
  return tables;
}

}  // namespace tdt::text
