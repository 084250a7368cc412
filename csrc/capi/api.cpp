// Version and errors: the functions of tdtdecode.h that are about the library itself.
#include "capi/api.h"

#ifndef TDT_VERSION
#error "TDT_VERSION must be the library's version"
#endif

namespace {

thread_local char last_error[1024] = "";

}  // namespace

namespace tdt::capi {

tdt_status fail(tdt_status status, const char* message) {
  std::strncpy(last_error, message, sizeof last_error - 1);
  return status;
}

}  // namespace tdt::capi

extern "C" {

int32_t tdt_abi_version(void) { return TDT_ABI_VERSION; }
const char* tdt_version(void) { return TDT_VERSION; }
const char* tdt_error_message(void) { return last_error; }
const char* tdt_instruction_set(void) { return tdt::capi::instruction_set(nullptr)->name; }

}  // extern "C"
