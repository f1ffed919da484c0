//! Recorded work of the driver.

use std::sync::Arc;

use cudarc::driver::CudaGraph;

use super::Context;
use crate::cuda::launch::Graph;
use crate::error::DeviceError;

pub(super) struct DriverGraph {
    graph: CudaGraph,
    /// Keeps the kernels loaded.
    context: Arc<Context>,
}

// SAFETY: the driver's handles may be used on any thread, by one at a time; this is not `Sync`.
unsafe impl Send for DriverGraph {}

impl DriverGraph {
    pub fn new(graph: CudaGraph, context: Arc<Context>) -> Self {
        Self { graph, context }
    }
}

impl Graph for DriverGraph {
    fn launch(&self) -> Result<(), DeviceError> {
        self.context.call("launch graph", || self.graph.launch())
    }
}

impl Drop for DriverGraph {
    fn drop(&mut self) {
        // cudarc destroys the graph in whatever context is current, and keeps what goes wrong for the next call of any
        // thread. Where the context is lost there is nobody to tell.
        let _ = self.context.call("free graph", || Ok(()));
    }
}
