//! The search without the decoder: bid weights, masks, log-softmax, the best continuations, items and policy; and with the
//! decoder's head before it, as launches of their own and as one.

use bidslate::catalog::{Catalog, Columns, ItemKind, Snapshot};
use bidslate::cuda::launch::Buffer;
use bidslate::cuda::norm_linear::{NormedRows, Projected, norm_linear};
use bidslate::cuda::search::{Head, Search, SearchLimits, SearchRequest};
use bidslate::decode::candidates::Ads;
use bidslate::error::DeviceError;
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::synthetic;
use criterion::Criterion;
use half::bf16;

use crate::costs::{Stages, Work, throughput};
use crate::device::{Cache, Device};
use crate::rules::rules;

const EPS: f32 = 1e-6;

pub fn bench(criterion: &mut Criterion, device: &Device) {
    for ads in device.pick(vec![20_000, 1_000_000], vec![500]) {
        bench_catalog(criterion, device, ads, &device.batches());
    }
}

/// The largest catalog, one request at a time.
pub fn bench_large(criterion: &mut Criterion, device: &Device) {
    bench_catalog(criterion, device, device.pick(20_000_000, 1_000), &[1]);
}

fn bench_catalog(criterion: &mut Criterion, device: &Device, ads: usize, batches: &[usize]) {
    // A search does not look at embeddings.
    let size = device.pick(ModelSize::Base, ModelSize::Tiny);
    let config = ModelConfig { item_embedding_size: 1, ..ModelConfig::of_size(size) };
    let catalog = Catalog::from_columns(only_ads(&config, ads), &config).expect("a catalog");
    for &requests in batches {
        bench_searches(criterion, device, &config, &catalog.snapshot(), requests);
    }
}

/// A catalog of so many ads.
fn only_ads(config: &ModelConfig, ads: usize) -> Columns {
    let mut columns = synthetic::catalog(config, ads, 1);
    columns.kinds.fill(ItemKind::Ad);
    // One in four was an ad before; the others take their bids in turns.
    let bids: Vec<u64> = columns.bid_micros.iter().copied().filter(|&bid| bid > 0).collect();
    for (bid, other) in columns.bid_micros.iter_mut().zip(bids.iter().cycle()) {
        *bid = *other;
    }
    columns
}

/// Searches over all ads of a catalog.
fn bench_searches(
    criterion: &mut Criterion,
    device: &Device,
    config: &ModelConfig,
    snapshot: &Snapshot,
    requests: usize,
) {
    let (ads, rules) = (Ads::all(snapshot), rules(config));
    let request = SearchRequest { rules: &rules, snapshot, ads: &ads, organic: &[], excluded: None };
    let limits = SearchLimits { requests, beams: config.beam_width, slots: config.list_len, candidates: 1 };
    let (layers, codes) = (config.poi_code_layers, config.codebook_size);
    let search = Search::new(&device.stream, limits, layers, codes).expect("device memory");
    let mut searches = Searches { criterion, device, search, asked: vec![request; requests] };

    let (beams, least) = (config.beam_width, Stages::new(config, requests));
    let steps = least.steps();
    let logits = device.upload(&device.numbers(requests * beams * codes));
    let name = format!("search {requests}x{beams} beams, {steps} steps, {} ads", ads.len());
    searches.bench(&name, steps, beams, least.select(), |search| search.advance(logits.ptr()));
    for d in device.hidden_sizes() {
        let config = ModelConfig { hidden_size: d, ..config.clone() };
        let name = format!("d {d}, batch {requests}, {steps} steps, {} ads", ads.len());
        bench_with_head(&mut searches, &config, &name);
    }
}

/// The same with the head before each step; where there are clusters, all of a step as one launch too.
fn bench_with_head(searches: &mut Searches<'_>, config: &ModelConfig, name: &str) {
    let ModelConfig { hidden_size: d, codebook_size: codes, beam_width: beams, .. } = *config;
    let (device, requests) = (searches.device, searches.asked.len());
    let (stream, m, least) = (&*device.stream, requests * beams, Stages::new(config, requests));
    let w: Vec<bf16> = device.numbers(codes * d).into_iter().map(bf16::from_f32).collect();
    let (x, norm, w) =
        (device.upload(&device.numbers(m * d)), device.upload(&vec![1.0; d]), device.upload(&w));
    let [mut hidden, mut logits] =
        [d, codes].map(|n| Buffer::<f32>::new(&device.stream, m * n).expect("device memory"));
    let rows = NormedRows { x: x.ptr(), weight: norm.ptr(), m, d, eps: EPS };
    let (steps, work) = (least.steps(), least.search_step());
    searches.bench(&format!("search_step {name}"), steps, beams, work, |search| {
        let y = Projected::F32(logits.ptr_mut());
        norm_linear(stream, rows, w.ptr(), codes, None, hidden.ptr_mut(), y)?;
        search.advance(logits.ptr())
    });
    if let Some(cluster) = searches.search.cluster(requests, beams, d).filter(|_| stream.hopper().is_ok()) {
        searches.bench(&format!("search_step_hopper {name}"), steps, beams, work, |search| {
            search.step(cluster, Head { rows, w: w.ptr(), hidden: hidden.ptr_mut() })
        });
    }
}

struct Searches<'a> {
    criterion: &'a mut Criterion,
    device: &'a Device,
    search: Search,
    asked: Vec<SearchRequest<'a>>,
}

impl Searches<'_> {
    /// All steps of the searches, recorded as one graph; what they are given is the same at each.
    fn bench(
        &mut self,
        name: &str,
        steps: usize,
        beams: usize,
        work: Work,
        mut step: impl FnMut(&mut Search) -> Result<(), DeviceError>,
    ) {
        let Self { criterion, device, search, asked } = self;
        search.begin(asked, beams).expect("a search");
        let mut all = || (0..steps).try_for_each(|_| step(search));
        let recorded = device.stream.capture(&mut all).expect("a graph");
        device.bench(criterion, name, throughput(work * steps), Cache::Warm, |_| {
            search.begin(asked, beams)?;
            recorded.launch()
        });
    }
}
