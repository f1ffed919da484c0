#include "library.h"

#include <link.h>

namespace simt {
namespace {

int inspect(dl_phdr_info* info, size_t, void* data) {
  auto& loaded = *static_cast<LoadedLibrary*>(data);
  uintptr_t wanted = reinterpret_cast<uintptr_t>(loaded.library);
  uintptr_t end = 0;
  const ElfW(Phdr)* thread_local_data = nullptr;
  for (unsigned i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) & header = info->dlpi_phdr[i];
    uintptr_t header_end = info->dlpi_addr + header.p_vaddr + header.p_memsz;
    if (header.p_type == PT_LOAD && header_end > end) end = header_end;
    if (header.p_type == PT_TLS) thread_local_data = &header;
  }
  if (wanted < info->dlpi_addr || wanted >= end) return 0;
  loaded.begin = info->dlpi_addr;
  loaded.end = end;
  auto mark = reinterpret_cast<uintptr_t>(loaded.library->static_shared());
  loaded.static_shared_offset = mark - reinterpret_cast<uintptr_t>(info->dlpi_tls_data);
  loaded.static_shared_bytes = thread_local_data ? thread_local_data->p_memsz : 0;
  return 1;
}

}  // namespace

const LoadedLibrary* find_loaded(const Library* library) {
  library->static_shared();  // the calling thread gets its copy when it first asks
  LoadedLibrary loaded{library, 0, 0, 0, 0};
  if (!dl_iterate_phdr(inspect, &loaded)) return nullptr;
  return new LoadedLibrary(loaded);  // libraries are never unloaded
}

}  // namespace simt
