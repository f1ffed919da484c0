//! The CPU backend: a model packed for the CPU, threads, and one workspace per request in flight.

use super::generation::Run;
use super::queue::Queue;
use super::task::{Context, Task};
use super::workspace::{Workspace, WorkspacePool};
use crate::cpu::{Exec, Isa, Team};
use crate::error::RequestError;
use crate::model::Model;
use crate::request::Request;
use crate::response::{Response, Timings};

/// A model on the CPU.
pub(super) struct CpuBackend {
    pub model: Model,
    pub isa: Isa,
    /// None where there is only the caller's thread.
    pub pool: Option<rayon::ThreadPool>,
    pub workspaces: WorkspacePool<Workspace>,
}

impl CpuBackend {
    /// Answers `requests`, each on its own.
    pub fn allocate(&self, context: Context, requests: &[Request]) -> Vec<Result<Response, RequestError>> {
        // Without a pool there is only the caller's thread, and one workspace is all that it can use.
        let most = if self.pool.is_some() { requests.len() } else { 1 };
        let mut loan = self.workspaces.lend(most);
        // Whole requests side by side as far as they go round, the threads together on each of the rest.
        let lanes = loan.workspaces.len();
        let side_by_side = if lanes > 1 { requests.len() / lanes * lanes } else { 0 };
        let (first, rest) = requests.split_at(side_by_side);
        let mut out = self.run_side_by_side(context, first, &mut loan.workspaces);
        for request in rest {
            let workspace = &mut loan.workspaces[0];
            out.push(match &self.pool {
                None => self.run(None, workspace, context, request),
                Some(pool) => pool.install(|| {
                    Team::assemble(pool, |team| self.run(Some(team), workspace, context, request))
                }),
            });
        }
        out
    }

    /// One request per workspace and thread at a time, taken in order.
    fn run_side_by_side(
        &self,
        context: Context,
        requests: &[Request],
        workspaces: &mut [Workspace],
    ) -> Vec<Result<Response, RequestError>> {
        let (Some(pool), false) = (&self.pool, requests.is_empty()) else { return Vec::new() };
        let queue = Queue::new(requests);
        pool.scope(|scope| {
            for workspace in workspaces {
                let queue = &queue;
                scope.spawn(move |_| queue.work(|request| self.run(None, workspace, context, request)));
            }
        });
        queue.into_answers().collect()
    }

    /// Answers one request.
    fn run(
        &self,
        team: Option<&Team>,
        workspace: &mut Workspace,
        context: Context,
        request: &Request,
    ) -> Result<Response, RequestError> {
        let _span = tracing::debug_span!("allocate", request = %request.id).entered();
        let mut timings = Timings::default();
        let task = Task::new(context, request, &mut timings)?;
        let exec = Exec { isa: self.isa, team };
        let mut run = Run::encode(&self.model, exec, workspace, &task, &mut timings)?;
        let generated = run.generate(&task, &mut timings)?;
        task.respond(generated, &mut run, timings)
    }
}
