//! What stands in the slots of the lists that a search found.

use bidslate::cuda::creative_input::NO_ROW;
use bidslate::cuda::launch::Buffer;
use bidslate::cuda::list_slots::ListSlots;
use bidslate::cuda::lists::NO_LIST;
use bidslate::cuda::search::SearchedLists;
use bidslate::model::config::BOC;

use crate::setup::Inputs;
use crate::streams::streams;

const NONE: u32 = u32::MAX;

/// Lists as a search leaves them, over `items` items and `ads` ads.
struct Searched {
    counts: Vec<u32>,
    items: Vec<u32>,
    ads: Vec<u32>,
    paths: Vec<u32>,
}

struct Sizes {
    requests: usize,
    per_request: usize,
    slots: usize,
    layers: usize,
    /// Slots that paths have room for.
    most_slots: usize,
}

impl Sizes {
    fn positions(&self) -> usize {
        self.most_slots * self.layers + 1
    }
}

const ITEMS: usize = 30;
const ADS: usize = 20;

impl Searched {
    fn draw(inputs: &mut Inputs, sizes: &Sizes) -> Self {
        let &Sizes { requests, per_request, slots, layers, .. } = sizes;
        let mut searched = Self {
            counts: inputs.indices(requests, per_request + 1),
            items: vec![NONE; requests * per_request * slots],
            ads: vec![NONE; requests * per_request * slots],
            paths: vec![NONE; requests * per_request * sizes.positions()],
        };
        for request in 0..requests {
            for list in 0..searched.counts[request] as usize {
                let list = request * per_request + list;
                let filled = inputs.indices(1, slots + 1)[0] as usize;
                for slot in list * slots..list * slots + filled {
                    searched.items[slot] = inputs.indices(1, ITEMS)[0];
                    if inputs.indices(1, 2)[0] == 0 {
                        searched.ads[slot] = inputs.indices(1, ADS)[0];
                    }
                }
                let path = inputs.indices(filled * layers + 1, per_request);
                searched.paths[list * sizes.positions()..][..path.len()].copy_from_slice(&path);
            }
        }
        searched
    }
}

#[test]
fn every_slot_is_looked_up() {
    let mut inputs = Inputs::new();
    for stream in streams() {
        for (requests, per_request, slots, layers, most_slots) in
            [(1, 1, 1, 1, 1), (3, 16, 3, 3, 5), (2, 7, 32, 2, 32), (5, 20, 1, 4, 2)]
        {
            let sizes = Sizes { requests, per_request, slots, layers, most_slots };
            let searched = Searched::draw(&mut inputs, &sizes);
            let bids: Vec<u64> =
                inputs.indices(ADS, 1 << 30).iter().map(|&bid| u64::from(bid) << 12).collect();
            // Some items have no creative.
            let offsets: Vec<u32> = std::iter::once(0)
                .chain(inputs.indices(ITEMS, 4).into_iter().scan(0, |end, count| {
                    *end += count;
                    Some(*end)
                }))
                .collect();
            let words = |values: &[u32]| Buffer::from_slice(&stream, values).unwrap();
            let rows = requests * per_request * slots;
            let empty = Buffer::from_slice(&stream, &vec![0.0; rows]).unwrap();
            let lists = SearchedLists {
                requests,
                per_request,
                slots,
                layers,
                positions: sizes.positions(),
                counts: &words(&searched.counts),
                items: &words(&searched.items),
                ads: &words(&searched.ads),
                ln_z: &empty,
                scores: &empty,
                paths: &words(&searched.paths),
                ad_bids: &Buffer::from_slice(&stream, &bids).unwrap(),
            };
            let mut found = ListSlots::new(&stream, requests, per_request, slots).unwrap();
            found.open(&*stream, lists, &words(&offsets)).unwrap();

            let read = |buffer: &Buffer<u32>| buffer.to_vec().unwrap();
            let (hidden, begin, end) =
                (read(&found.hidden_row), read(&found.creative), read(&found.creatives_end));
            let (lengths, found_bids) = (found.lengths.to_vec().unwrap(), found.bids.to_vec().unwrap());
            for (list, &length) in lengths.iter().enumerate() {
                let (request, rank) = (list / per_request, list % per_request);
                let items = &searched.items[list * slots..(list + 1) * slots];
                let filled = items.iter().take_while(|&&item| item != NONE).count();
                let there = rank < searched.counts[request] as usize;
                assert_eq!(length, if there { filled as i32 } else { NO_LIST });
                for (slot, &item) in items.iter().enumerate() {
                    let row = list * slots + slot;
                    let got = (hidden[row], begin[row], end[row], found_bids[row]);
                    if slot >= filled {
                        assert_eq!(got, (NO_ROW, 0, 0, 0), "slot {slot} of list {list}");
                        continue;
                    }
                    let position = (slot + 1) * layers;
                    let path = searched.paths[list * sizes.positions() + position] as usize;
                    let state = (position * requests + request) * per_request + path;
                    let item = item as usize;
                    let bid = searched.ads[row];
                    let bid = if bid == NONE { 0 } else { bids[bid as usize] };
                    let want = (state as u32, offsets[item], offsets[item + 1], bid);
                    assert_eq!(got, want, "slot {slot} of list {list}");
                }
            }
            let of_lists: Vec<u32> = (0..requests * per_request).map(|l| (l / per_request) as u32).collect();
            let firsts: Vec<u32> = (0..=requests).map(|r| (r * per_request) as u32).collect();
            assert_eq!(read(&found.list_request), of_lists);
            assert_eq!(read(&found.offsets), firsts);
            assert_eq!(read(&found.token), vec![BOC as u32; rows]);
            assert_eq!(read(&found.fault), vec![0; requests]);
        }
    }
}
