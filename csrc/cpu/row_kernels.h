// The loops over joint rows, compiled once per instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "tdt/row.h"

namespace tdt::cpu {

// Decides `count` rows, each layout.width() floats, one after the other in memory; writes one entry each.
using DecideRows = void (*)(const float* rows, std::size_t count, const RowLayout& layout, float blank_penalty,
                            std::int32_t* tokens, std::int32_t* durations, float* token_logprobs,
                            float* duration_logprobs);

}  // namespace tdt::cpu
