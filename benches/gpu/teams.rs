//! The whole search of a batch, decoder included, in each of its forms: a launch for each operation, and one launch by
//! clusters of every size and by a grid. Which form runs for which size of model is chosen by these figures.

use bidslate::cuda::choice::Kernels;
use bidslate::cuda::decode_step::{self, Team};
use bidslate::error::DeviceError;
use bidslate::model::config::ModelConfig;
use criterion::Criterion;

use crate::costs::{Stages, throughput};
use crate::device::{Cache, Device};
use crate::pass::{Loaded, Pass};

/// Blocks of the clusters.
const CLUSTERS: [u32; 3] = [4, 8, 16];

pub fn bench(criterion: &mut Criterion, device: &Device) {
    if !device.runs(Kernels::Persistent) {
        return;
    }
    for model in device.models() {
        let loaded = Loaded::new(device, &device.config(model), Kernels::Portable);
        for requests in device.pick(vec![1, 8, 32], vec![2]) {
            bench_forms(criterion, device, &loaded, requests).expect("a search in every form");
        }
    }
}

fn bench_forms(
    criterion: &mut Criterion,
    device: &Device,
    loaded: &Loaded,
    requests: usize,
) -> Result<(), DeviceError> {
    let config: &ModelConfig = &loaded.model.config;
    let mut pass = Pass::new(loaded, requests)?;
    pass.encode()?;
    let least = Stages::new(config, requests).search();
    for (form, team) in forms(device, loaded)? {
        pass.set_team(team);
        pass.begin()?;
        let graph = device.stream.capture(&mut || pass.search())?;
        let name = format!("whole_search d {}, batch {requests}, {form}", config.hidden_size);
        device.bench(criterion, &name, throughput(least), Cache::Warm, |_| {
            pass.begin()?;
            graph.launch()
        });
    }
    Ok(())
}

/// The forms that run here, by name.
fn forms(device: &Device, loaded: &Loaded) -> Result<Vec<(String, Option<Team>)>, DeviceError> {
    let (stream, shape) = (&*device.stream, &loaded.model.shape);
    let mut found = vec![("graph".to_owned(), None)];
    for blocks in CLUSTERS {
        let team = decode_step::cluster(stream, blocks, shape.d, shape.head_size())?;
        if team == Some(Team::Cluster(blocks)) {
            found.push((format!("clusters of {blocks}"), team));
        }
    }
    if let Some(team) = decode_step::grid(stream, shape.d, shape.head_size())? {
        found.push(("grid".to_owned(), Some(team)));
    }
    Ok(found)
}
