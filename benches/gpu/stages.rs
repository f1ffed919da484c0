//! The stages of a batch, each by itself: encoder, a step of the decoder, creatives, reward model, payment network.
//!
//! Before each run of a stage the cache is filled with something else. Not before a decode step: in the loop that it is
//! of, the one before has read the same weights, keys and values.

use bidslate::cuda::choice::Kernels;
use bidslate::cuda::launch::{Graph, Launches};
use bidslate::error::DeviceError;
use bidslate::model::config::ModelConfig;
use criterion::Criterion;

use crate::costs::{Stages, throughput};
use crate::device::{Cache, Device, suffix};
use crate::pass::{Loaded, Pass};

pub fn bench(criterion: &mut Criterion, device: &Device) {
    bench_with(criterion, device, Kernels::Measured, Launches::Ordinary);
}

/// The same with programmatic launches.
pub fn bench_programmatic(criterion: &mut Criterion, device: &Device) {
    if device.runs(Kernels::Hopper) {
        bench_with(criterion, device, Kernels::Measured, Launches::Programmatic);
    }
}

/// The decoder's step by the search in its persistent form, where that runs; all else is as it was.
pub fn bench_persistent(criterion: &mut Criterion, device: &Device) {
    if !device.runs(Kernels::Persistent) {
        return;
    }
    for model in device.models() {
        let loaded = Loaded::new(device, &device.config(model), Kernels::Persistent);
        for requests in device.batches() {
            let mut step = || -> Result<(), DeviceError> {
                let mut pass = Pass::new(&loaded, requests)?;
                pass.encode()?;
                let ending = suffix(Kernels::Persistent, Launches::Ordinary);
                decode_step(criterion, device, &loaded, ending, &mut pass, requests)
            };
            step().expect("a step of the decoder");
        }
    }
}

/// The same with the kernels made for Hopper.
pub fn bench_hopper(criterion: &mut Criterion, device: &Device) {
    if device.runs(Kernels::Hopper) {
        bench_with(criterion, device, Kernels::Hopper, Launches::Ordinary);
    }
}

/// The same with those, and programmatic launches: what `Kernels::Hopper` asks an engine for.
pub fn bench_hopper_programmatic(criterion: &mut Criterion, device: &Device) {
    if device.runs(Kernels::Hopper) {
        bench_with(criterion, device, Kernels::Hopper, Launches::Programmatic);
    }
}

fn bench_with(criterion: &mut Criterion, device: &Device, kernels: Kernels, launches: Launches) {
    device.set_launches(launches);
    for model in device.models() {
        let config = device.config(model);
        let loaded = Loaded::new(device, &config, kernels);
        for requests in device.batches() {
            let ending = suffix(kernels, launches);
            batch(criterion, device, &loaded, ending, requests).expect("a pass over the stages");
        }
    }
    device.set_launches(Launches::Ordinary);
}

fn batch(
    criterion: &mut Criterion,
    device: &Device,
    loaded: &Loaded,
    ending: &str,
    requests: usize,
) -> Result<(), DeviceError> {
    let config: &ModelConfig = &loaded.model.config;
    let least = Stages::new(config, requests);
    let name = |stage: &str| name(stage, config, requests, ending);
    let mut pass = Pass::new(loaded, requests)?;

    let encoder = throughput(least.encoder());
    pass.encode()?;
    device.bench(criterion, &name("encoder"), encoder, Cache::Cold, |_| pass.encode());

    decode_step(criterion, device, loaded, ending, &mut pass, requests)?;
    let steps = pass.steps();
    pass.select()?;
    (steps / 2 + 1..steps).try_for_each(|position| pass.decode(position).and_then(|()| pass.select()))?;
    pass.decode(steps)?;
    pass.finish()?;

    let creative = recorded(loaded, || pass.choose_creatives())?;
    let work = throughput(least.creative());
    device.bench(criterion, &name("creative"), work, Cache::Cold, |_| creative.launch());
    let reward = recorded(loaded, || pass.score())?;
    let work = throughput(least.reward());
    device.bench(criterion, &name("reward"), work, Cache::Cold, |_| reward.launch());
    assert!(pass.found_lists()?, "a request without a list");
    let payment = recorded(loaded, || pass.pay())?;
    let work = throughput(least.payment());
    device.bench(criterion, &name("payment"), work, Cache::Cold, |_| payment.launch());
    // Nothing of it is made for Hopper, and it is one launch.
    if requests == device.batches()[0] && ending.is_empty() {
        misreports(criterion, device, &pass, config)?;
    }
    Ok(())
}

fn name(stage: &str, config: &ModelConfig, requests: usize, ending: &str) -> String {
    format!("{stage} d {}, batch {requests}{ending}", config.hidden_size)
}

/// A position of the decoder. Half of the steps are behind the one that is measured.
fn decode_step(
    criterion: &mut Criterion,
    device: &Device,
    loaded: &Loaded,
    ending: &str,
    pass: &mut Pass,
    requests: usize,
) -> Result<(), DeviceError> {
    pass.begin()?;
    let config = &loaded.model.config;
    let position = pass.steps() / 2;
    (0..position).try_for_each(|position| pass.decode(position).and_then(|()| pass.select()))?;
    let step = recorded(loaded, || pass.decode(position))?;
    let work = throughput(Stages::new(config, requests).decode_step(position));
    let name = name("decode_step", config, requests, ending);
    device.bench(criterion, &name, work, Cache::Warm, |_| step.launch());
    Ok(())
}

/// The rates of an audit's misreports: every slot of a list, ten of each.
fn misreports(
    criterion: &mut Criterion,
    device: &Device,
    pass: &Pass,
    config: &ModelConfig,
) -> Result<(), DeviceError> {
    let (ads, each) = (config.list_len, 10);
    let mut misreported = pass.misreported(each)?;
    let name = format!("misreports d {}, {}", config.hidden_size, ads * each);
    let work = throughput(Stages::new(config, 1).misreports(ads, each));
    device.bench(criterion, &name, work, Cache::Cold, |_| pass.pay_misreports(&mut misreported));
    Ok(())
}

/// A stage as the engine enqueues it: one graph. It runs once here, for the stages after it read what it leaves, and a
/// filter may leave out its bench.
fn recorded(
    loaded: &Loaded,
    mut stage: impl FnMut() -> Result<(), DeviceError>,
) -> Result<Box<dyn Graph>, DeviceError> {
    let graph = loaded.stream.capture(&mut stage)?;
    graph.launch()?;
    Ok(graph)
}
