//! The search without the decoder: bid weights, masks, log-softmax, the best continuations, items and policy.

use bidslate::catalog::Catalog;
use bidslate::cuda::search::{Search, SearchLimits, SearchRequest};
use bidslate::decode::candidates::Ads;
use bidslate::model::config::{ModelConfig, ModelSize};
use bidslate::synthetic;
use criterion::Criterion;

use crate::costs::{Stages, throughput};
use crate::device::{Cache, Device};
use crate::rules::rules;

pub fn bench(criterion: &mut Criterion, device: &Device) {
    for items in device.pick(vec![20_000, 1_000_000], vec![500]) {
        for requests in device.batches() {
            whole(criterion, device, items, requests);
        }
    }
}

/// Every step of searches over all ads, recorded as one graph; the logits are the same at each.
fn whole(criterion: &mut Criterion, device: &Device, items: usize, requests: usize) {
    let config = ModelConfig::of_size(device.pick(ModelSize::Base, ModelSize::Tiny));
    let columns = synthetic::catalog(&config, items, 1);
    let catalog = Catalog::from_columns(columns, &config).expect("a catalog");
    let snapshot = catalog.snapshot();
    let (ads, rules) = (Ads::all(&snapshot), rules(&config));
    let asked: Vec<_> = (0..requests)
        .map(|_| SearchRequest {
            rules: &rules,
            snapshot: &snapshot,
            ads: &ads,
            organic: &[],
            excluded: None,
        })
        .collect();
    let limits = SearchLimits { requests, beams: config.beam_width, slots: config.list_len, candidates: 1 };
    let (layers, codes) = (config.poi_code_layers, config.codebook_size);
    let mut search = Search::new(&device.stream, limits, layers, codes).expect("device memory");
    let logits = device.upload(&device.numbers(requests * config.beam_width * codes));
    search.begin(&asked, config.beam_width).expect("a search");
    let steps = config.list_len * layers;
    let mut all = || (0..steps).try_for_each(|_| search.advance(logits.ptr()));
    let recorded = device.stream.capture(&mut all).expect("a graph");
    let name = format!("search {requests}x{} beams, {steps} steps, {items} items", config.beam_width);
    let least = throughput(Stages::new(&config, requests).select() * steps);
    device.bench(criterion, &name, least, Cache::Warm, |_| {
        search.begin(&asked, config.beam_width)?;
        recorded.launch()
    });
}
