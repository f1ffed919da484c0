//! The GPU backend: a model on a device, and one workspace per stream. Requests run in batches.

use super::counterfactual::{Counterfactuals, DecoderWork, RateQuery, Rated, Variant};
use super::gpu_batch::Batch;
use super::gpu_workspace::GpuWorkspace;
use super::queue::Queue;
use super::task::{Context, Generated, Task, is_finite};
use super::workspace::WorkspacePool;
use crate::cuda::catalog::Catalogs;
use crate::cuda::model::DeviceModel;
use crate::error::{DeviceError, RequestError, RequestErrorKind};
use crate::request::Request;
use crate::response::{Response, Timings};

/// A model on a GPU.
pub(super) struct GpuBackend {
    pub model: DeviceModel,
    pub catalogs: Catalogs,
    pub workspaces: WorkspacePool<GpuWorkspace>,
    /// Most requests of a batch.
    pub batch: usize,
}

type Answer = Result<Response, RequestError>;

impl GpuBackend {
    /// Answers `requests`. A response does not depend on the batch that its request ran in.
    pub fn allocate(&self, context: Context, requests: &[Request]) -> Vec<Answer> {
        let batches: Vec<&[Request]> = requests.chunks(self.batch).collect();
        let mut loan = self.workspaces.lend(batches.len());
        match &mut loan.workspaces[..] {
            [workspace] => {
                batches.into_iter().flat_map(|batch| self.run(workspace, context, batch)).collect()
            }
            workspaces => self.run_side_by_side(workspaces, context, &batches),
        }
    }

    /// One batch per stream at a time, taken in order: while one stream is waited for, the host prepares another's.
    fn run_side_by_side(
        &self,
        workspaces: &mut [GpuWorkspace],
        context: Context,
        batches: &[&[Request]],
    ) -> Vec<Answer> {
        let queue = Queue::new(batches);
        std::thread::scope(|scope| {
            for workspace in workspaces {
                let queue = &queue;
                scope.spawn(move || queue.work(|batch| self.run(workspace, context, batch)));
            }
        });
        queue.into_answers().flatten().collect()
    }

    /// Answers a batch.
    fn run(&self, workspace: &mut GpuWorkspace, context: Context, requests: &[Request]) -> Vec<Answer> {
        let _span = tracing::debug_span!("allocate", requests = requests.len()).entered();
        let mut answers: Vec<Option<Answer>> = requests.iter().map(|_| None).collect();
        let (mut tasks, mut places, mut resolved) = (Vec::new(), Vec::new(), Vec::new());
        for (request, answer) in requests.iter().zip(&mut answers) {
            let mut timings = Timings::default();
            match Task::new(context, request, &mut timings) {
                Err(error) => *answer = Some(Err(error)),
                Ok(task) => {
                    tasks.push(task);
                    places.push(answer);
                    resolved.push(timings);
                }
            }
        }
        let count = tasks.len();
        let answered = self.answer(workspace, context, tasks, resolved);
        let answered =
            answered.unwrap_or_else(|error| (0..count).map(|_| Err(device_failed(&error))).collect());
        places.into_iter().zip(answered).for_each(|(place, answer)| *place = Some(answer));
        // Every place is filled: by an error above, or by its task.
        answers.into_iter().flatten().collect()
    }

    /// Answers the requests of a batch that can be run, whose times so far are `resolved`.
    fn answer(
        &self,
        workspace: &mut GpuWorkspace,
        context: Context,
        tasks: Vec<Task>,
        resolved: Vec<Timings>,
    ) -> Result<Vec<Answer>, DeviceError> {
        let catalog = self.catalogs.hold(&workspace.stream, &self.model.config, context.snapshot)?;
        let plain = Batch {
            model: &self.model,
            catalogs: &self.catalogs,
            catalog: &catalog,
            trace: false,
            logits: false,
            timed: context.report.timings,
        };
        let logits = tasks.iter().any(Task::reads_logits);
        let batch = Batch { logits, trace: context.report.trace, ..plain };
        let parts: Vec<_> = tasks.iter().map(|task| (task, None)).collect();
        let mut stages = Timings::default();
        let generated = batch.generate(workspace, &parts, &mut stages)?;
        let mut again = Again { batch: plain, workspace };
        let answer = |((task, generated), resolved): ((Task, Result<Generated, _>), Timings)| {
            let timings = Timings { resolve_us: resolved.resolve_us, ..stages.clone() };
            task.respond(generated?, &mut again, timings)
        };
        Ok(tasks.into_iter().zip(generated).zip(resolved).map(answer).collect())
    }
}

/// Searches again by plain batches of one request: no two bids of one ad can stand in a batch, and the rows of the
/// request's own search are gone when its neighbours of the batch were searched again.
struct Again<'m, 'w> {
    batch: Batch<'m>,
    workspace: &'w mut GpuWorkspace,
}

impl Counterfactuals for Again<'_, '_> {
    fn lists(
        &mut self,
        task: &Task,
        _: &Generated,
        variants: &[Variant],
        timings: &mut Timings,
    ) -> Result<Vec<Generated>, RequestError> {
        let again = |&variant: &Variant| {
            let snapshot = variant.snapshot(task.context.snapshot);
            let changed = variant.task(task, &snapshot);
            let lists = self.batch.generate(self.workspace, &[(&changed, variant.excluded())], timings);
            // One list for the one task.
            lists.map_err(|error| device_failed(&error))?.remove(0)
        };
        variants.iter().map(again).collect()
    }

    fn work(&self) -> Option<DecoderWork> {
        None
    }

    fn rates(&mut self, task: &Task, queries: &[RateQuery]) -> Result<Vec<Rated>, RequestError> {
        let rates = self.batch.rates(self.workspace, task, queries).map_err(|error| device_failed(&error))?;
        is_finite("payment", "the payment network's rate", rates.iter().map(|rated| rated.rate))?;
        Ok(rates)
    }
}

/// What becomes of a request whose batch the device did not finish.
fn device_failed(error: &DeviceError) -> RequestError {
    RequestError::new(RequestErrorKind::Device, "device", error.to_string())
}
