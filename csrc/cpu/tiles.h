// The few operations on Intel's tile registers (AMX) that the kernels use. TDT_EMULATE_TILES replaces them by plain
// C++, so that a test can run the kernels on any processor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace tdt::cpu::TDT_ISA {

constexpr int kTileBytes = 64;  // of a tile's row
constexpr int kTileRows = 16;

// The operand of LDTILECFG: palette 1. Tiles 0 to 3 hold sums, tile 4 rows, tile 5 weights.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1, start = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

constexpr int kSumTiles = 4, kRowTile = 4, kWeightTile = 5;

inline TileConfig tile_config(int rows) {
  TileConfig config;
  for (int tile = 0; tile <= kWeightTile; ++tile) {
    config.row_bytes[tile] = kTileBytes;
    config.rows[tile] = static_cast<std::uint8_t>(tile == kWeightTile ? kTileRows : rows);
  }
  return config;
}

#if defined(TDT_EMULATE_TILES)

struct EmulatedTile {
  char bytes[kTileRows][kTileBytes];
};
inline thread_local EmulatedTile emulated_tiles[8];
inline thread_local TileConfig emulated_config;

inline void configure(const TileConfig& config) { emulated_config = config; }
inline void release_tiles() { emulated_config = TileConfig(); }
template <int TILE>
void zero_tile() {
  emulated_tiles[TILE] = EmulatedTile();
}
template <int TILE>
void load_tile(const void* from, std::size_t stride) {
  for (int row = 0; row < emulated_config.rows[TILE]; ++row)
    std::memcpy(emulated_tiles[TILE].bytes[row], static_cast<const char*>(from) + row * stride, kTileBytes);
}
template <int TILE>
void store_tile(void* to, std::size_t stride) {
  for (int row = 0; row < emulated_config.rows[TILE]; ++row)
    std::memcpy(static_cast<char*>(to) + row * stride, emulated_tiles[TILE].bytes[row], kTileBytes);
}
template <int SUM, class Value, class Row, class Weight, int GROUP, class Widen>
void add_tile_products(Widen widen) {
  for (int m = 0; m < emulated_config.rows[SUM]; ++m)
    for (int k = 0; k < kTileRows; ++k)
      for (int n = 0; n < 16; ++n) {
        Value sum;
        std::memcpy(&sum, emulated_tiles[SUM].bytes[m] + 4 * n, 4);
        for (int i = 0; i < GROUP; ++i) {
          Row row;
          Weight weight;
          std::memcpy(&row, emulated_tiles[kRowTile].bytes[m] + sizeof row * (GROUP * k + i), sizeof row);
          std::memcpy(&weight, emulated_tiles[kWeightTile].bytes[k] + sizeof weight * (GROUP * n + i), sizeof weight);
          sum += widen(row) * widen(weight);
        }
        std::memcpy(emulated_tiles[SUM].bytes[m] + 4 * n, &sum, 4);
      }
}
template <int SUM>
void add_pair_products() {
  add_tile_products<SUM, float, std::uint16_t, std::uint16_t, 2>([](std::uint16_t half) {
    const std::uint32_t bits = static_cast<std::uint32_t>(half) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  });
}
template <int SUM>
void add_byte_products() {
  add_tile_products<SUM, std::int32_t, std::uint8_t, std::int8_t, 4>([](std::int32_t byte) { return byte; });
}

#else

// Inline assembly, because the compiler's intrinsics take tile numbers as literals only, not as template parameters.
inline void configure(const TileConfig& config) { __asm__ volatile("ldtilecfg %0" ::"m"(config)); }
inline void release_tiles() { __asm__ volatile("tilerelease"); }
template <int TILE>
void zero_tile() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(TILE));
}
template <int TILE>
void load_tile(const void* from, std::size_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(TILE) : "memory");
}
template <int TILE>
void store_tile(void* to, std::size_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(TILE) : "memory");
}
template <int SUM>
void add_pair_products() {
  __asm__ volatile("tdpbf16ps %%tmm%c0, %%tmm%c1, %%tmm%c2" ::"i"(kWeightTile), "i"(kRowTile), "i"(SUM));
}
template <int SUM>
void add_byte_products() {
  __asm__ volatile("tdpbusd %%tmm%c0, %%tmm%c1, %%tmm%c2" ::"i"(kWeightTile), "i"(kRowTile), "i"(SUM));
}

#endif

}  // namespace tdt::cpu::TDT_ISA
