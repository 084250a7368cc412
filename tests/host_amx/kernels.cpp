// The network kernels behind a plain C function, for a test to call; built with tile registers emulated, or without.
#include <vector>

#include "../../csrc/cpu/network_kernels.cpp"

extern "C" void multiply(int format, int outputs, int inputs, const void* panels, const float* bias,
                         const float* scales, const std::int32_t* sums, const float* rows, int count, float* outs) {
  using namespace tdt::cpu;
  const Matrix matrix = {static_cast<Format>(format), outputs, inputs, panels, bias, scales, sums};
  std::vector<const float*> row_pointers;
  std::vector<float*> out_pointers;
  for (int i = 0; i < count; ++i) {
    row_pointers.push_back(rows + static_cast<std::size_t>(i) * inputs);
    out_pointers.push_back(outs + static_cast<std::size_t>(i) * outputs);
  }
  std::vector<char> scratch(staged_bytes(matrix) * count);
  std::vector<StagedRow> staged(count);
  const NetworkKernels& kernels = TDT_ISA::network_kernels;
  kernels.stage(matrix, row_pointers.data(), count, scratch.data(), staged.data());
  kernels.multiply(matrix, staged.data(), count, 0, matrix.panel_count(), out_pointers.data());
}
