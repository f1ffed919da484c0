// What stands in each slot of the lists that a search found, for the creative decoder, the reward
// model and the payment network.
//
// Request q of R has the lists q N to q N + N - 1, of S slots each; slot i of list l is row l S + i.
//
//   items      u32 [R N S]        rows in the catalog, NONE behind the last
//   list_ads   u32 [R N S]        the ads among them, NONE for organic items
//   counts     u32 [R]            lists of each request
//   paths      u32 [R N][P]       the row that ran the list's prefix at each position
//   ad_bids    u64 [ads]          micros
//   creative_offsets u32 [items + 1]  an item's creatives stand from its entry to the next
// Out:
//   lengths       i32 [R N]       filled slots; -1 where there is no such list
//   list_request  u32 [R N]       the request of a list
//   offsets       u32 [R + 1]     the first list of a request; their number
//   hidden_row    u32 [R N S]     row of the hidden states [P][R N] behind the item's last code; NONE
//                                 where the slot is empty, as for all that follows
//   creative, creatives_end  u32 [R N S]  the item's creatives; both 0
//   token         u32 [R N S]     the token that begins a creative, `boc`
//   bids          u64 [R N S]     micros; 0 also for organic items
//   fault         u32 [R]         0
//
// Launch: 256 threads, one a row, grid ceil(R N S / 256). Bytes: 44 a row, 8 S more a list. No FLOPs:
// it is over before the next kernel is there, and no host has to look at the lists.
#include "search.cuh"

using namespace search;

constexpr int NO_LIST = -1;

// Filled slots of the list whose items are these.
PTX_FN int filled_slots(const unsigned* items, unsigned slots) {
  unsigned filled = 0;
  while (filled < slots && items[filled] != NONE) filled++;
  return (int)filled;
}

extern "C" __global__ void __launch_bounds__(256)
list_slots(const unsigned* __restrict__ items, const unsigned* __restrict__ list_ads,
           const unsigned* __restrict__ counts, const unsigned* __restrict__ paths,
           const unsigned long long* __restrict__ ad_bids,
           const unsigned* __restrict__ creative_offsets, unsigned requests, unsigned per_request,
           unsigned slots, unsigned layers, unsigned positions, unsigned boc, int* lengths,
           unsigned* list_request, unsigned* offsets, unsigned* hidden_row, unsigned* creative,
           unsigned* creatives_end, unsigned* token, unsigned long long* bids, unsigned* fault) {
  begin_kernel();
  const unsigned lists = requests * per_request;
  const size_t row = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= (size_t)lists * slots) return;
  const unsigned list = row / slots, slot = row % slots, request = list / per_request;
  const unsigned item = items[row];
  const bool filled = item != NONE;
  const unsigned position = (slot + 1) * layers;
  hidden_row[row] =
      filled ? position * lists + request * per_request + paths[(size_t)list * positions + position]
             : NONE;
  creative[row] = filled ? creative_offsets[item] : 0;
  creatives_end[row] = filled ? creative_offsets[item + 1] : 0;
  token[row] = boc;
  bids[row] = filled && list_ads[row] != NONE ? ad_bids[list_ads[row]] : 0;
  if (slot != 0) return;

  const unsigned rank = list % per_request;
  lengths[list] = rank < counts[request] ? filled_slots(items + row, slots) : NO_LIST;
  list_request[list] = request;
  if (rank != 0) return;
  fault[request] = 0;
  offsets[request] = list;
  if (request == 0) offsets[requests] = lists;
}
